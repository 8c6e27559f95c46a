"""Tables and curves of a page as lines of text for a terminal."""

import unicodedata
from collections.abc import Iterator, Sequence

from acc_megatron.common.html_page import Bars, Table

LEVELS = "▁▂▃▄▅▆▇█"


def table_lines(table: Table) -> Iterator[str]:
    """A table with aligned columns; wide characters count as two."""
    rows = [[str(cell) for cell in row] for row in table.rows]
    header = [list(table.header)] if any(table.header) else []
    widths = [max(map(_width, column)) for column in zip(*header, *rows, strict=True)]
    for row in (*header, *rows):
        cells = zip(row, widths, range(len(row)), strict=True)
        yield "  ".join(_padded(cell, width, column in table.number_columns) for cell, width, column in cells).rstrip()


def bar_lines(bars: Bars, *, columns: int = 30) -> Iterator[str]:
    """Bars as one line each: name, bar, size."""
    width = max((_width(part.label) for part in bars.rows), default=0)
    for part in bars.rows:
        full = round(columns * part.value / bars.largest)
        yield f"{_padded(part.label, width, False)}  {'█' * full:<{columns}}  {part.text}"


def sparkline(values: Sequence[float], *, columns: int = 60) -> str:
    """A curve in one line of text: means over equal parts of `values`, from the lowest to the highest."""
    count = min(columns, len(values))
    bounds = [len(values) * place // count for place in range(count + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in zip(bounds, bounds[1:], strict=False)]
    low, span = min(means), (max(means) - min(means)) or 1.0
    return "".join(LEVELS[round((mean - low) / span * (len(LEVELS) - 1))] for mean in means)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _padded(text: str, width: int, to_the_right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if to_the_right else text + space
