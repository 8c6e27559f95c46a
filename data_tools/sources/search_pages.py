"""What a search agent saw: hits and visited pages, read off the output of its tools.

Known are Google-like text, numbered `[title](url)` lists, and JSON of objects with an url. Any other text that a visit
gave is that page; any longer text that a search gave is a page named after the query. Two spellings of one url are one
page, and a visit that failed is none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

from acc_megatron.data_tools.jsonl import BadJson, parse_json
from acc_megatron.data_tools.sources.transcript import Step

_VISIT_TOOLS = {"visit", "open", "fetch", "browse", "crawl", "scrape", "goto", "navigate"}
_VISIT_WORDS = re.compile(r"url|page|visit|fetch|browse|crawl|scrape|website")
_SEARCH_TOOLS = {"google", "bing", "tavily", "serper", "wikipedia", "lookup", "retrieve", "retriever", "duckduckgo"}
_URL_KEYS = ("url", "link", "href", "urls", "uri")
_TITLE_KEYS = ("title", "name")
_TEXT_KEYS = ("content", "raw_content", "text", "markdown", "snippet", "description", "body", "summary")
_LIST_KEYS = ("results", "organic", "organic_results", "items", "hits", "documents", "data", "pages")
_MIN_PASSAGE_CHARACTERS = 80  # what is shorter is a notice, such as "rate limited"
_FAILED = ("error", "[error", "failed", "traceback", "exception", "[visit] failed", "[visit] empty")
# how WebDancer and its successors tell of a page among others that could not be read
_NO_PAGE = "The provided webpage content could not be accessed."
_NO_PAGE_EITHER = "\n=======\nError fetching "

_BLOCK = re.compile(r"^A Google search for ", re.MULTILINE)
_VISIT = re.compile(r"^The useful information in (\S+) for user goal ", re.MULTILINE)
_SEPARATOR = re.compile(r"\n=+\s*$")


def page_key(url: str) -> str:
    """What the spellings of one page's url share: scheme, `www.`, an anchor, a closing slash and %-escapes are none.

    A fragment that opens with `!` or `/` names a page of its own. An id that is no url is its own key.
    """
    scheme, mark, rest = url.strip().partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        return url
    address, _, fragment = rest.partition("#")
    host, slash, path = address.partition("/")
    own = f"#{fragment}" if fragment.startswith(("!", "/")) else ""
    return host.lower().removeprefix("www.") + unquote(slash + path).rstrip("/") + own


def page_of(pages: "dict[str, Page]", url: str) -> "Page":
    """The page of an url, a new one under the first spelling met."""
    return pages.setdefault(page_key(url), Page(url=url))


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
    """Add every hit and visited page of one tool response; False when it has not the form of either."""
    visits, blocks = list(_VISIT.finditer(response)), list(_BLOCK.finditer(response))
    if visits and (not blocks or visits[0].start() < blocks[0].start()):
        for visit, text in zip(visits, _sections(visits, response), strict=True):
            text = _SEPARATOR.sub("", text.partition(_NO_PAGE_EITHER)[0]).strip()
            if _NO_PAGE not in text:
                page = page_of(pages, visit[1])
                page.is_visited = True
                page.add(text)
        return True
    for block in _sections(blocks, response):
        _add_hits(pages, _SEPARATOR.sub("", block))
    return bool(blocks)


def tool_kind(name: str) -> str:
    """`search`, `visit`, or '' for a tool of another kind, by its name."""
    name = name.lower()
    if name in _VISIT_TOOLS or (_VISIT_WORDS.search(name) and "search" not in name):
        return "visit"
    return "search" if "search" in name or name in _SEARCH_TOOLS else ""


def visited_urls(step: Step) -> list[str]:
    """The urls that a visiting call asks for."""
    if tool_kind(step.tool) != "visit":
        return []
    found = next((step.arguments[key] for key in _URL_KEYS if key in step.arguments), step.argument("input"))
    return [url for url in (found if isinstance(found, list) else [found]) if isinstance(url, str) and url]


def add_output(pages: dict[str, Page], step: Step) -> bool:
    """Add every hit and page of one step's output; False when nothing in it is known."""
    text, kind = step.output.strip(), tool_kind(step.tool)
    if not text or add_response(pages, text):
        return bool(text)
    urls, value = visited_urls(step), _json(text)
    keys, found = {page_key(url) for url in urls}, list(_objects_with_url(value))
    for url, item in found:
        _add(pages, url, _first(item, _TITLE_KEYS), _all(item, _TEXT_KEYS), is_visited=page_key(url) in keys)
    if found:
        return True
    if text.lower().startswith(_FAILED):
        return False
    if urls:
        text = _all(value, _TEXT_KEYS) if isinstance(value, dict) else text
        _add(pages, urls[0], _first(value, _TITLE_KEYS), text, is_visited=True)
        return True
    num_pages = len(pages)
    _add_hits(pages, text)
    if len(pages) == num_pages and kind == "search" and len(text) >= _MIN_PASSAGE_CHARACTERS:
        _add(pages, f"{step.tool}: {step.argument('query', 'q', 'input', 'queries')}", "", text, is_visited=False)
    return len(pages) > num_pages


def _add(pages: dict[str, Page], url: str, title: str, text: str, *, is_visited: bool) -> None:
    page = page_of(pages, url)
    page.title = page.title or title
    page.is_visited |= is_visited
    page.add(text.strip())


def _json(text: str) -> Any:
    """The object or list that a text is; None for other text."""
    try:
        return parse_json(text.encode()) if text.startswith(("{", "[")) else None
    except BadJson:
        return None


def _objects_with_url(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects with an url: the value, its items, or the items of a list of results inside it."""
    if isinstance(value, dict):
        if url := _first(value, _URL_KEYS):
            yield url, value
            return
        value = [item for key in _LIST_KEYS if isinstance(value.get(key), list) for item in value[key]]
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict) and (url := _first(item, _URL_KEYS)):
            yield url, item


def _first(value: Any, keys: tuple[str, ...]) -> str:
    found = (value.get(key) for key in keys) if isinstance(value, dict) else ()
    return next((text for text in found if isinstance(text, str) and text), "")


def _all(value: dict[str, Any], keys: tuple[str, ...]) -> str:
    texts = (value.get(key) for key in keys)
    return "\n\n".join(dict.fromkeys(text.strip() for text in texts if isinstance(text, str) and text.strip()))


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
            page = page_of(pages, url)
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
