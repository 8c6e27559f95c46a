"""The code blocks of the README and the manual, with the reason of those that no test runs.

A comment `<!-- not run: REASON -->` directly before a block, or `<!-- no block of this page is run: REASON -->`
anywhere on a page, marks what no test can run.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from support.commands import ROOT

_FENCE = re.compile(r"^```([\w-]*) *(.*)\n((?:.*\n)*?)```$", re.M)
_TITLE = re.compile(r'title="([^"]+)"')
_BLOCK_REASON = re.compile(r"<!-- not run: (.+?) -->\s*$", re.S)
_PAGE_REASON = re.compile(r"<!-- no block of this page is run: (.+?) -->", re.S)


@dataclass(frozen=True)
class Block:
    """One fenced block; `title` is the file that the reader writes it to, `reason` says why no test runs it."""

    page: str
    line: int
    language: str
    title: str
    text: str
    reason: str

    @property
    def commands(self) -> list[str]:
        """The lines of a `sh` block without comments; a line that ends in a backslash continues."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line and not line.startswith("#")]


def pages() -> list[str]:
    """Every page that people read, as a path in the repository."""
    names = [path for folder in ("docs", "examples", "kernels") for path in (ROOT / folder).rglob("*.md")]
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    return [str(path.relative_to(ROOT)) for path in (*top, *sorted(names)) if path.is_file()]


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """The blocks of one page in their order."""
    text = (ROOT / page).read_text()
    whole_page = _PAGE_REASON.search(text)
    found = []
    for match in _FENCE.finditer(text):
        own = _BLOCK_REASON.search(text[: match.start()])
        title = _TITLE.search(match[2])
        reason = own[1] if own else whole_page[1] if whole_page else ""
        line = text[: match.start()].count("\n") + 1
        found.append(Block(page, line, match[1], title[1] if title else "", match[3], reason))
    return tuple(found)


def links(page: str) -> list[str]:
    """The targets of the links of a page, without those inside of blocks."""
    text = _FENCE.sub("", (ROOT / page).read_text())
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)


def headings(path: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    text = _FENCE.sub("", path.read_text())
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
