"""Self-contained HTML pages from Jinja2 templates that extend `page.html.jinja`: no script, no link to anywhere else.

A template stands next to the Python file that fills it. Autoescape is on: text is escaped, a `Table` or a `Figure` puts
in its own HTML.
"""

import io
import re
import shlex
import sys
import time
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from acc_megatron import __version__
from acc_megatron.common.atomic_files import atomic_file

_BASE_TEMPLATES = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a header; `number_columns` are right-aligned. An empty header is left out."""

    header: Sequence[str]
    rows: Iterable[Sequence[object]]
    number_columns: Collection[int] = ()

    def __html__(self) -> str:
        return _environment().get_template("table.html.jinja").render(table=self)


@dataclass(frozen=True, slots=True)
class Figure:
    """An SVG drawing with a caption."""

    drawing: Markup
    caption: str

    def __html__(self) -> str:
        return _environment().get_template("figure.html.jinja").render(figure=self)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a drawing: its name, its size, and its size in words; `kind` is a colour, such as "evidence"."""

    label: str
    value: float
    text: str
    kind: str = ""


KINDS = (
    "evidence",
    "distractor",
    "question",
    "reasoning",
    "answer",
    "teal",
    "rose",
)  # the colours that a part may have


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars on one scale, in the given order."""

    rows: Sequence[Part]
    caption: str = ""

    @property
    def largest(self) -> float:
        """The value whose bar has the full width."""
        return max((part.value for part in self.rows), default=0.0) or 1.0

    def __html__(self) -> str:
        return _environment().get_template("bars.html.jinja").render(bars=self)


@dataclass(frozen=True, slots=True)
class Strip:
    """One bar divided into parts in the given order, with a key; without `key`, each part has its own entry.

    `total` is the size of the complete strip, if the parts do not fill it.
    """

    parts: Sequence[Part]
    caption: str = ""
    total: float = 0.0
    key: Sequence[Part] = ()

    @property
    def full(self) -> float:
        """The size of the complete strip."""
        return max(self.total, sum(part.value for part in self.parts)) or 1.0

    @property
    def rest(self) -> float:
        """What the parts leave free."""
        return max(0.0, self.total - sum(part.value for part in self.parts))

    def __html__(self) -> str:
        shown = Strip(self.parts, self.caption, self.total, self.key or self.parts)
        return _environment().get_template("strip.html.jinja").render(strip=shown)


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval, and both in words."""

    label: str
    low: float
    value: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class Intervals:
    """Values with their intervals on one scale around a line at 0 (a forest plot)."""

    rows: Sequence[Interval]
    caption: str = ""

    def place(self, value: float) -> str:
        """The place of a value in percent of the width; 0 is in the middle."""
        reach = max((abs(bound) for row in self.rows for bound in (row.low, row.high)), default=0.0) or 1.0
        return f"{50 + 48 * value / reach:.2f}"

    def __html__(self) -> str:
        return _environment().get_template("intervals.html.jinja").render(intervals=self)


def write_page(path: Path, template: Path, *, title: str, refresh_seconds: int | None = None, **values: Any) -> None:
    """Publish `template`, filled with `title` and `values`, at `path`; the page states date, version and command.

    With `refresh_seconds` a browser loads the page again after this time. A value that the template uses and the caller
    does not give raises jinja2.UndefinedError.
    """
    values |= {"title": title, "refresh_seconds": refresh_seconds, "made": _made()}
    text = _environment(template.parent).get_template(template.name).render(values)
    with atomic_file(path) as file:
        file.write(text.encode())


def _made() -> dict[str, str]:
    """When and by which command a page is made. A page made from Python names no command.

    Queries of URLs are left out, because they may hold keys.
    """
    command = ""
    program = Path(sys.argv[0])
    if program.name == "acc-megatron" or program.parent.name == "acc_megatron":
        words = (re.sub(r"(https?://[^?]*)\?.*", r"\1?...", word) for word in sys.argv[1:])
        command = shlex.join(["acc-megatron", *words])
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "version": __version__,
        "command": command,
    }


def _environment(*folders: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader([*folders, _BASE_TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def matplotlib_text(name: str) -> str:
    r"""A name that matplotlib shows literally: `$` starts no formula, and a leading `_` is not left out of a legend."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def svg(drawing: Any) -> Markup:
    """A matplotlib figure as SVG without background; text stays text, so that the browser's fonts show every script."""
    import matplotlib

    buffer = io.StringIO()
    fonts: dict[Any, Any] = {"svg.fonttype": "none", "font.family": ["DejaVu Sans", "sans-serif"]}
    with matplotlib.rc_context(fonts), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the browser has it
        # metadata would contain the date and addresses of other sites
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        drawing.savefig(buffer, format="svg", metadata=metadata, transparent=True)
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])
