"""What a search agent saw: hits and visited pages, read off the text of its tool responses."""

import re
from dataclasses import dataclass, field
from itertools import pairwise

_BLOCK = re.compile(r"^A Google search for ", re.MULTILINE)
_VISIT = re.compile(r"^The useful information in (\S+) for user goal ", re.MULTILINE)
_SEPARATOR = re.compile(r"\n=+\s*$")


@dataclass(slots=True)
class Page:
    """One url with every text met for it, in the order met and once each."""

    url: str
    title: str = ""
    texts: dict[str, None] = field(default_factory=dict)  # an ordered set
    is_visited: bool = False

    def add(self, text: str) -> None:
        """Keep a text that is new."""
        if text:
            self.texts[text] = None


def add_response(pages: dict[str, Page], response: str) -> bool:
    """Add every hit and visited page of one tool response; False when it holds neither."""
    visits, blocks = list(_VISIT.finditer(response)), list(_BLOCK.finditer(response))
    if visits and (not blocks or visits[0].start() < blocks[0].start()):
        for visit, text in zip(visits, _sections(visits, response), strict=True):
            page = pages.setdefault(visit[1], Page(url=visit[1]))
            page.is_visited = True
            page.add(text)
        return True
    for block in _sections(blocks, response):
        _add_hits(pages, _SEPARATOR.sub("", block))
    return bool(blocks)


def _sections(heads: list[re.Match[str]], text: str) -> list[str]:
    """The text from each head up to the next."""
    bounds = [head.start() for head in heads] + [len(text)]
    return [text[start:end].strip() for start, end in pairwise(bounds)]


def _add_hits(pages: dict[str, Page], block: str) -> None:
    """Hits are numbered from 1; a line out of that order is part of a snippet, however it looks."""
    page: Page | None = None
    snippet: list[str] = []
    expected = 1
    for line in block.split("\n"):
        hit = _hit(line, expected)
        if hit:
            if page:
                page.add("\n".join(snippet).strip())
            title, url = hit
            page = pages.setdefault(url, Page(url=url))
            page.title = page.title or title
            snippet, expected = [], expected + 1
        else:
            snippet.append(line)
    if page:
        page.add("\n".join(snippet).strip())


def _hit(line: str, number: int) -> tuple[str, str] | None:
    """Title and url of `N. [title](url)`; titles hold brackets and urls parentheses, so the line's end closes them."""
    head, line = f"{number}. [", line.rstrip()
    title, mark, url = line[len(head) : -1].rpartition("](")
    is_hit = line.startswith(head) and line.endswith(")") and mark and url and not any(map(str.isspace, url))
    return (title, url) if is_hit else None
