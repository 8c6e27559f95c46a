"""What a search agent saw: hits and visited pages, read off the text of its tool responses."""

import re
from dataclasses import dataclass, field
from itertools import pairwise

# titles hold brackets and urls parentheses, so both are read greedily and the line's end closes them
_HIT = re.compile(r"(\d+)\. \[(.*)\]\((\S+)\)\s*")
_BLOCK = re.compile(r"^A Google search for ", re.MULTILINE)
_VISIT = re.compile(r"^The useful information in (\S+) for user goal ", re.MULTILINE)
_SEPARATOR = re.compile(r"\n=+\s*$")


@dataclass(slots=True)
class Page:
    """One url with every text met for it, in the order met and once each."""

    url: str
    title: str = ""
    texts: list[str] = field(default_factory=list)
    is_visited: bool = False

    def add(self, text: str) -> None:
        """Keep a text that is new."""
        if text and text not in self.texts:
            self.texts.append(text)


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
        hit = _HIT.fullmatch(line)
        if hit and int(hit[1]) == expected:
            if page:
                page.add("\n".join(snippet).strip())
            page = pages.setdefault(hit[3], Page(url=hit[3]))
            page.title = page.title or hit[2]
            snippet, expected = [], expected + 1
        else:
            snippet.append(line)
    if page:
        page.add("\n".join(snippet).strip())
