"""Hits that a tool writes with labels in any order: `Title: T`, `URL: https://...`, `Content: text` (MCP servers)."""

import re
from typing import NamedTuple

_LABEL = re.compile(
    r"\s{0,4}(?:\d{1,3}[.)] |[-*] )?\*{0,2}(title|url|link|source url|content|text|description|snippet|summary)"
    r"\*{0,2}:\*{0,2}[ \t]*(.*)",
    re.IGNORECASE,
)
_URLS = {"url", "link", "source url"}
_FIRST_LINES, _OPENING_CHARACTERS = 3, 1_000  # such an output begins with a label, perhaps below a heading


class LabelledHit(NamedTuple):
    """The URL, the title ('' if none) and the text of a hit."""

    url: str
    title: str
    text: str


def labelled_hits(text: str) -> list[LabelledHit]:
    """The hits of an output; a title or a URL that the hit has already begins the next one."""
    opening = [line for line in text[:_OPENING_CHARACTERS].split("\n") if line.strip()]
    if not any(map(_LABEL.match, opening[:_FIRST_LINES])):
        return []
    hits: list[LabelledHit] = []
    url = title = ""
    body: list[str] = []
    for line in text.split("\n"):
        found = _LABEL.match(line)
        label = found[1].lower() if found else ""
        given = found[2].strip() if found else line
        if (label == "title" and title) or (label in _URLS and url):
            hits.append(LabelledHit(url, title, "\n".join(body).strip(" \n-=")))
            url, title, body = "", "", []
        if label == "title":
            title = given
        elif label in _URLS:
            url = given if " " not in given else ""
        else:
            body.append(given)
    hits.append(LabelledHit(url, title, "\n".join(body).strip(" \n-=")))
    return [hit for hit in hits if hit.url]
