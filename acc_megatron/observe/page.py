"""The pieces a report page is made of: its style, escaped tables, and figures as inline SVG."""

import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
h3 { font-size: 1rem; margin-top: 1.6rem }
table { border-collapse: collapse; margin: .8rem 0 } td, th { padding: .25rem .9rem .25rem 0; text-align: left }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
th { border-bottom: 1px solid #999; font-weight: 600 } figure { margin: 1rem 0 } svg { max-width: 100%; height: auto }
figcaption, .note { color: #666; font-size: .9rem }
"""


def as_drawn(name: str) -> str:
    """A name that matplotlib shows letter by letter: dollars are no mathematics, no underscore hides it in a legend."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def svg(drawing: Any) -> str:
    """A matplotlib figure as SVG text."""
    buffer = io.StringIO()
    # no metadata: it would hold a date and addresses of other places
    drawing.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def figure(drawing: str, caption: str) -> str:
    """A drawing with its caption."""
    return f"<figure>{drawing}<figcaption>{html.escape(caption)}</figcaption></figure>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: set[int] = frozenset()) -> str:  # type: ignore[assignment]
    """A table of escaped cells; the columns in `numbers` are set flush right."""

    def line(cells: Sequence[str], tag: str) -> str:
        cell = (
            f"<{tag}{' class=number' if column in numbers else ''}>{html.escape(str(text))}</{tag}>"
            for column, text in enumerate(cells)
        )
        return f"<tr>{''.join(cell)}</tr>"

    head = line(header, "th") if any(header) else ""
    return f"<table>{head}{''.join(line(row, 'td') for row in rows)}</table>"
