"""Passages of a retriever without URLs, each with a number and a title.

Search-R1 writes `Doc 1(Title: "T") text`, R1-Searcher `(1)Title: T Text: text` and `(1)T   text`, others `[1] Title: T`
with the text in the next line. LangChain's Wikipedia tool writes `Page: T` and `Summary: text` without a number.
"""

import re
from itertools import pairwise

_HEAD = re.compile(
    r"^(?:(?:Doc(?:ument)?|Passage|Result) ?#?)?[\[(]?(\d{1,3})[\])]?[.:]? ?"
    r'(?:\(Title: ?"?([^\n"]{0,500}?)"?\)|"?Title: ?"?([^\n"]{0,500}?)"?(?: Text:|$)|(?<=\))(\S[^\n]{0,500}?)(?= {3}))'
    r"[ \n]?",
    re.MULTILINE,
)


_WIKIPEDIA = re.compile(r"^Page: ([^\n]{1,500})\nSummary: ?", re.MULTILINE)


def passages(text: str) -> list[tuple[str, str]]:
    """(title, text) of each passage; a head whose number is out of order is part of a text."""
    heads: list[re.Match[str]] = []
    for head in _HEAD.finditer(text):
        if int(head[1]) == len(heads) + 1:
            heads.append(head)
    if not heads and text.startswith("Page: "):
        heads = list(_WIKIPEDIA.finditer(text))
    ends = [head.start() for head in heads] + [len(text)]
    return [
        (_title(head), text[head.end() : end].strip()) for head, (_, end) in zip(heads, pairwise(ends), strict=True)
    ]


def _title(head: re.Match[str]) -> str:
    titles = head.groups() if head.re is _WIKIPEDIA else head.groups()[1:]
    return next((title.strip() for title in titles if title), "")
