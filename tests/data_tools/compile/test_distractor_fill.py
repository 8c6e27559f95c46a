"""Filling adds real pieces up to a target length, never evidence of the question, and depends only on the seed."""

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import SHARED_DATA

from acc_megatron.data_tools.compile.compile import compile_inputs
from acc_megatron.data_tools.compile.compile_trajectory import compile_trajectory
from acc_megatron.data_tools.compile.distractor_fill import (
    Filler,
    parse_targets,
)
from acc_megatron.data_tools.compile.distractor_stock import Stock, piece_key
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.compile.stock_shards import lent_by, stock_lent, stock_shared_pieces
from acc_megatron.data_tools.schema import Piece, Provenance, Trajectory
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import ConfigError

DATA = SHARED_DATA


def page(name: str, text: str = "", words: int = 50) -> Piece:
    return Piece(id=f"https://{name}.org/x", title=name, text=text or f"{name} " * words, kind="evidence")


def run_of(name: str, *pages: Piece, question: str = "", truth: str = "Lutetia") -> Trajectory:
    return Trajectory(
        id=name,
        agent="search",
        question=question or f"What about {name}?",
        evidence=pages,
        distractors=(),
        reasoning="So.",
        reasoning_source="agent",
        answer=truth,
        ground_truth=truth,
        provenance=Provenance(file="f", line=1, sha256="0" * 64),
    )


def filler(folder: Path, tokenizer: Tokenizer, runs: list[Trajectory], target: str, **options: Any) -> Filler:
    stock = Stock(folder / f"{len(list(folder.iterdir()))}.sqlite", seed=0, **options)
    for run in runs:
        stock_lent(stock, lent_by(run, tokenizer))
    stock.seal()
    return Filler(stock, Resources(), parse_targets([target]), 0, tokenizer)


@pytest.mark.parametrize("target", [600, 1500, 4000])
def test_a_context_is_filled_up_to_its_target_and_not_beyond(tmp_path: Path, tokenizer: Tokenizer, target: int) -> None:
    runs = [run_of(f"run{i}", page(f"page{i}", words=40 + i)) for i in range(60)]
    fill = filler(tmp_path, tokenizer, runs, f"search={target}")
    for run in runs[:5]:
        triple = compile_trajectory(run, CompileSettings(), tokenizer, fill)
        assert target - 200 <= triple.settings["tokens"] <= target
        filled = [piece for piece in triple.context if piece.filled]
        assert {piece.kind for piece in filled} == {"distractor"} and len(triple.context) == len(filled) + 1
        assert 0 < triple.settings["filled_tokens"] == triple.settings["distractor_tokens"]
        assert triple.settings["evidence_tokens"] > 0
        again = compile_trajectory(run, CompileSettings(), tokenizer, fill)
        assert again == triple


def test_two_runs_get_different_pieces_and_every_piece_is_used(tmp_path: Path, tokenizer: Tokenizer) -> None:
    runs = [run_of(f"run{i}", page(f"page{i}")) for i in range(40)]
    fill = filler(tmp_path, tokenizer, runs, "search=1500")
    chosen = [tuple(piece.id for piece, _ in fill.pieces(run, 1_000)) for run in runs]
    assert len(set(chosen)) >= 35  # there are few different walks over 40 pieces
    used = {id_ for ids in chosen for id_ in ids}
    assert len(used) == 40


def test_no_added_piece_is_evidence_of_the_question_under_any_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    mine = run_of("mine", page("gold"), question="Which?")
    runs = [
        mine,
        run_of("other", replace(page("gold"), id="http://www.gold.org/x/#part", title="else", text="same url")),
        run_of("twin", page("second"), question="Which?"),
        run_of("copy", replace(page("gold"), id="https://mirror.org/", title="mirror")),
        run_of("title", replace(page("gold"), id="https://third.org/", text="same title")),
        run_of("tells", page("tells", text="The old name is LUTETIA.")),
        run_of("fine", page("fine")),
    ]
    fill = filler(tmp_path, tokenizer, runs, "search=5000")
    assert [piece.title for piece, _ in fill.pieces(mine, 4_000)] == ["fine"]
    known = replace(mine, ground_truth="Paris", notes={"aliases": ["Lutetia"]})
    assert [piece.title for piece, _ in fill.pieces(known, 4_000)] == ["fine"]
    short = replace(mine, ground_truth="fin")  # a page can contain such a short text by chance
    assert [piece.title for piece, _ in fill.pieces(short, 4_000)].count("fine") == 1


def test_the_stock_is_bounded_and_the_same_for_any_order_of_the_input(tmp_path: Path, tokenizer: Tokenizer) -> None:
    runs = [run_of(f"run{i}", page(f"page{i:02}")) for i in range(40)]
    one_page = len(page("page00").text) + len("page00")
    found = []
    for order in (runs, runs[::-1]):
        fill = filler(tmp_path, tokenizer, order, "search=90000", max_bytes=10 * one_page)
        found.append({piece.id for piece, _ in fill.pieces(run_of("x", page("x")), 10**6)})
    assert 9 <= len(found[0]) <= 10 and 9 <= len(found[1]) <= 10
    assert len(found[0] & found[1]) >= 9


def test_a_piece_that_a_full_stock_left_out_is_not_added_later(tmp_path: Path, tokenizer: Tokenizer) -> None:
    pages = [page(f"page{i:02}") for i in range(20)]
    pages.sort(key=lambda piece: hashlib.sha256(f"0\0search\0{piece.id[8:]}".encode()).digest())
    one_page = len(pages[0].text) + len(pages[0].title)
    stock = Stock(tmp_path / "stock.sqlite", seed=0, max_bytes=10 * one_page)
    for piece in (*pages[:11], pages[19]):
        stock.add("search", piece, tokens=50)
    stock.seal()
    assert {piece.id for piece, _ in stock.walk("search", "any")} == {piece.id for piece in pages[:9]}


def test_target_lengths_are_uniform_over_their_range(tmp_path: Path, tokenizer: Tokenizer) -> None:
    fill = filler(tmp_path, tokenizer, [], "search=1000..1999")
    targets = [fill.target_tokens(run_of(f"run{i}")) for i in range(300)]
    assert all(1000 <= target <= 1999 for target in targets)
    assert all(45 <= sum(low <= target < low + 250 for target in targets) <= 105 for low in (1000, 1250, 1500, 1750))
    assert fill.target_tokens(replace(run_of("a"), agent="sql")) == 0


def test_added_tables_have_the_format_of_the_evidence_tables(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as connection:
        connection.executescript("CREATE TABLE sale (item, price); INSERT INTO sale VALUES ('pen', 2);")
    resources = Resources(table_format="csv")
    resources.add_database(tmp_path / "shop.sqlite")
    stock = Stock(tmp_path / "stock.sqlite", seed=0)
    stock_shared_pieces(stock, "sql", resources, tokenizer)
    stock.seal()
    assert [piece.text for piece, _ in stock.walk("sql", "any")] == ["item,price\npen,2"]


@pytest.mark.parametrize("setting", ["search", "web=5", "search=0", "search=9..5", "search=-1", "search=1..x"])
def test_invalid_fill_settings_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="fill-tokens"):
        parse_targets([setting])
    with pytest.raises(ConfigError, match="--no-distractors removes them"):
        CompileSettings(distractors=False, fill_tokens={"search": (5, 5)})
    with pytest.raises(ConfigError, match=r"9000 tokens for sql, more than --budget-tokens 8192"):
        CompileSettings(budget_tokens=8192, fill_tokens={"search": (5, 8192), "sql": (5, 9000)})


def test_the_key_of_a_piece_is_equal_only_for_spellings_of_one_url() -> None:
    same = ["https://a.org/B", "http://www.a.org/b/", "HTTPS://A.org/b", "https://a.org/b#c"]
    same += ["https://a.org/%42", "https://a.org/b/#c"]
    assert {piece_key(url) for url in same} == {"a.org/b"}
    assert piece_key("src/a.py") == "src/a.py" != piece_key("src/a.py/")


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data")
def test_real_runs_are_filled_from_pages_files_and_tables(tmp_path: Path, tokenizer: Tokenizer) -> None:
    settings = CompileSettings(fill_tokens={"search": (12_000, 12_000), "swe": (30_000, 30_000), "sql": (4_000, 4_000)})
    inputs = [DATA / "search", DATA / "swe", DATA / "sql"]
    summary = compile_inputs(
        inputs, tmp_path / "out", agent="auto", resources=[], settings=settings, tokenizer=tokenizer
    )
    assert summary["documents_out"] == 281  # as without filling
    rows = [json.loads(line) for line in (tmp_path / "out" / "triples.jsonl").read_bytes().splitlines()]
    evidence: dict[str, set[str]] = {}
    for row in rows:
        known = evidence.setdefault(row["question"], set())
        known |= {piece["id"] for piece in row["context"] if piece["kind"] == "evidence"}
    lengths = {"search": (11_000, 12_000), "swe": (25_000, 30_000), "sql": (3_000, 4_000)}
    for row in rows:
        filled = [piece["id"] for piece in row["context"] if piece["filled"]]
        assert not evidence[row["question"]] & set(filled)
        low, high = lengths[row["agent"]]
        natural = row["settings"]["tokens"] - row["settings"]["filled_tokens"]
        assert natural > high - 200 or low <= row["settings"]["tokens"] <= high, row["id"]
    for agent, counts in summary["by_agent"].items():
        assert counts["filled_tokens"] > 0 and sum(counts["lengths"].values()) == counts["documents_out"], agent
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "quarantine.jsonl",
        "triples.jsonl",
    ]
