"""Passages of a retriever without URLs, as Search-R1 writes them: `Doc 1(Title: "T") text`."""

import re
from itertools import pairwise

_HEAD = re.compile(r'^Doc(?:ument)? ?(\d{1,3}) ?\(Title: ?"?([^\n"]{0,500}?)"?\) ?', re.MULTILINE)


def passages(text: str) -> list[tuple[str, str]]:
    """(title, text) of each passage; a head whose number is out of order is part of a text."""
    heads: list[re.Match[str]] = []
    for head in _HEAD.finditer(text):
        if int(head[1]) == len(heads) + 1:
            heads.append(head)
    ends = [head.start() for head in heads] + [len(text)]
    return [
        (head[2].strip(), text[head.end() : end].strip()) for head, (_, end) in zip(heads, pairwise(ends), strict=True)
    ]
