"""Pages escape what they are given and load nothing."""

from pathlib import Path

import jinja2
import pytest
from markupsafe import Markup

from acc_megatron.common.html_page import Figure, Table, matplotlib_text, write_page

TEMPLATE = """{% extends "page.html.jinja" %}{% block body %}{{ text }}{{ table }}{{ figure }}{% endblock %}"""


def written(folder: Path, **values: object) -> str:
    (folder / "own.html.jinja").write_text(TEMPLATE)
    write_page(folder / "page.html", folder / "own.html.jinja", **values)
    return (folder / "page.html").read_text()


def test_text_is_escaped_in_the_title_the_body_and_every_cell(tmp_path: Path) -> None:
    hostile = "<script>&"
    table = Table((hostile, "count"), [(hostile, 3)], {1})
    figure = Figure(Markup("<svg></svg>"), hostile)
    page = written(tmp_path, title=hostile, text=hostile, table=table, figure=figure)
    assert "<script" not in page
    assert page.count("&lt;script&gt;&amp;") == 6  # <title>, <h1>, text, header, cell, caption
    assert "<td class=number>3</td>" in page and "<svg></svg>" in page


def test_a_page_says_how_wide_a_screen_is_and_loads_nothing(tmp_path: Path) -> None:
    page = written(tmp_path, title="t", text="", table="", figure="")
    assert page.startswith("<!doctype html>")
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert not [word for word in ("<script", "<link", "src=", "href=", "@import", "url(") if word in page]


def test_a_value_that_is_not_given_is_an_error_and_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(jinja2.UndefinedError, match="text"):
        written(tmp_path, title="t")
    assert not (tmp_path / "page.html").exists()


def test_an_empty_header_is_left_out() -> None:
    assert "<th" not in Table(("", ""), [("a", "b")]).__html__()


@pytest.mark.parametrize("name, shown", [("$a$", r"\$a\$"), ("_a", " _a"), ("a_b", "a_b")])
def test_matplotlib_shows_a_name_literally(name: str, shown: str) -> None:
    assert matplotlib_text(name) == shown
