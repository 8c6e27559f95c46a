"""Hits and visited pages of a search agent, read from the output of its tools.

The known forms are Google-like text, numbered `[title](url)` lists, and JSON objects with a URL. Any other text of a
visit is the text of that page; any other text of a search is a page named after the query. A notice that a tool found
nothing or failed (notices.py) gives no page. All spellings of a URL are one page.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

from acc_megatron.common.json_rows import BadJson, parse_json
from acc_megatron.data_tools.rows.fields import embedded_list, literal_object
from acc_megatron.data_tools.sources.formats.log_format import Step
from acc_megatron.data_tools.sources.page_url import page_key
from acc_megatron.data_tools.sources.search.labelled_hits import labelled_hits
from acc_megatron.data_tools.sources.search.notices import is_empty_result, is_notice
from acc_megatron.data_tools.sources.search.passages import passages

_VISIT_TOOLS = {"visit", "open", "fetch", "browse", "crawl", "scrape", "goto", "navigate"}
_VISIT_WORDS = re.compile(r"(?:get|read|open|fetch|view)_?doc|url|page|visit|fetch|browse|crawl|scrape|website")
_SEARCH_TOOLS = {"google", "bing", "tavily", "serper", "wikipedia", "lookup", "retrieve", "retriever", "duckduckgo"}
_URL_KEYS = ("url", "link", "href", "urls", "uri", "docid", "doc_id")
_TITLE_KEYS = ("title", "name")
_TEXT_KEYS = (
    "content", "raw_content", "text", "markdown", "snippet", "description", "body", "summary", "page_content", "result",
    "output", "contents", "passage", "extract",
)  # fmt: skip
_ID_KEYS = ("title", "id", "_id", "name")  # of documents without a URL
_LIST_KEYS = (
    "results", "organic", "organic_results", "items", "hits", "documents", "data", "pages", "web",
    "webPages", "value", "response", "document", "docs", "passages", "search_results", "result",
)  # fmt: skip
# the notices of WebDancer and its successors for a page that could not be read
_NO_PAGE = "The provided webpage content could not be accessed."
# a visit whose extract is the page of an error
_GONE = re.compile(
    r"^Evidence in page:\s{0,8}\W{0,8}"
    r"(?:(?:error )?40[34]\W{0,8}(?:$|not found|forbidden)|page not found|access denied)",
    re.MULTILINE | re.IGNORECASE,
)
_NO_PAGE_EITHER = "\n=======\nError fetching "

_BLOCK = re.compile(
    r"^An? (?:\w{1,30} ){1,3}for [^\n]{1,2000} found \d+ results?\b|^(?:\w{1,30} ){0,2}results for [^\n]{1,2000}:$",
    re.MULTILINE | re.IGNORECASE,
)
_URL = re.compile(r"(?:https?://|www\.)\S+|[\w-]+(?:\.[\w-]+){1,5}(?:/\S*)?")
_HEADING = re.compile(r"\s{0,8}## Search Results\b")
_VISIT = re.compile(r"^The useful information in (\S+) for user goal ", re.MULTILINE)
_SEPARATOR = re.compile(r"\n=+\s*$")


def page_of(pages: "dict[str, Page]", url: str) -> "Page":
    """The page of a URL; a new page keeps the first spelling."""
    return pages.setdefault(page_key(url), Page(url=url))


@dataclass(slots=True)
class Page:
    """One URL with all its texts, each once, in the order in which the agent met them."""

    url: str
    title: str = ""
    texts: dict[str, None] = field(default_factory=dict)  # an ordered set
    is_visited: bool = False

    def add(self, text: str) -> None:
        """Add a text unless the page has it."""
        if text:
            self.texts[text] = None


def add_response(pages: dict[str, Page], response: str) -> bool:
    """Add every hit and visited page of one tool response; False if the response has neither form."""
    visits = list(_VISIT.finditer(response)) if " for user goal " in response else []
    lowered = response.lower()
    blocks = list(_BLOCK.finditer(response)) if " found " in lowered or "results for " in lowered else []
    if visits and (not blocks or visits[0].start() < blocks[0].start()):
        for visit, text in zip(visits, _sections(visits, response), strict=True):
            text = _SEPARATOR.sub("", text.partition(_NO_PAGE_EITHER)[0]).strip()
            if _NO_PAGE not in text and _GONE.search(text) is None:
                page = page_of(pages, visit[1])
                page.is_visited = True
                page.add(text)
        return True
    for block in _sections(blocks, response):
        _add_hits(pages, _SEPARATOR.sub("", block))
    return bool(blocks)


@lru_cache(maxsize=4096)
def tool_kind(name: str) -> str:
    """The kind of a tool by its name: `search`, `visit`, or '' for any other."""
    name = name.lower()
    if name in _VISIT_TOOLS or (_VISIT_WORDS.search(name) and "search" not in name):
        return "visit"
    return "search" if "search" in name or name in _SEARCH_TOOLS else ""


def visited_urls(step: Step) -> list[str]:
    """The URLs that a call of a visit tool asks for."""
    if tool_kind(step.tool) != "visit":
        return []
    found = next((step.arguments[key] for key in _URL_KEYS if key in step.arguments), step.argument("input"))
    if not found:
        given = (text for text in step.arguments.values() if isinstance(text, str))
        found = next((text for text in given if _URL.fullmatch(text)), "")
    return [url for url in (found if isinstance(found, list) else [found]) if isinstance(url, str) and url]


def add_output(pages: dict[str, Page], step: Step) -> bool:
    """Add every hit and page of the output of a step; False if it contains none."""
    text, kind = step.output.strip(), tool_kind(step.tool)
    if not text or add_response(pages, text):
        return bool(text)
    urls, value = visited_urls(step), _json(text)
    keys, found = {page_key(url) for url in urls}, list(_objects_with_url(value, with_ids=not urls))
    for url, item in found:
        _add(pages, url, _first(item, _TITLE_KEYS), _all(item, _TEXT_KEYS), is_visited=page_key(url) in keys)
    if found:
        return True
    if is_notice(text) or (value is not None and is_empty_result(value, _LIST_KEYS, _TEXT_KEYS)):
        return False
    if urls:
        text = (_all(value, _TEXT_KEYS) if isinstance(value, dict) else "") or text
        _add(pages, urls[0], _first(value, _TITLE_KEYS), text, is_visited=True)
        return True
    num_pages = len(pages)
    for title, passage in passages(text):
        _add(pages, title, title, passage, is_visited=False)
    for hit in labelled_hits(text):
        _add(pages, hit.url, hit.title, hit.text, is_visited=False)
    _add_hits(pages, text)
    if len(pages) == num_pages and kind:
        _add(pages, f"{step.tool}: {step.argument('query', 'q', 'input', 'queries')}", "", text, is_visited=False)
    return len(pages) > num_pages


def _add(pages: dict[str, Page], url: str, title: str, text: str, *, is_visited: bool) -> None:
    page = page_of(pages, url)
    page.title = page.title or title
    page.is_visited |= is_visited
    page.add(text.strip())


def _json(text: str) -> Any:
    """The object or list of a JSON text, or of the text that Python writes; None for any other text."""
    try:
        return parse_json(text.encode()) if text.startswith(("{", "[")) else None
    except BadJson:
        return embedded_list(text) if text.startswith("[{'") else literal_object(text) or None


def _objects_with_url(value: Any, *, with_ids: bool, is_item: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects with a URL: the value, its items, or the items of its lists of results, at any depth of these.

    With `with_ids` a document in a list can have a title or an id instead.
    """
    if isinstance(value, dict):
        url = _first(value, _URL_KEYS) or _first(value.get("metadata"), _URL_KEYS) or _number(value)
        if url or (with_ids and is_item and (url := _first(value, _ID_KEYS)) and _all(value, _TEXT_KEYS)):
            yield url, value
            return
        inside = [value[key] for key in _LIST_KEYS if isinstance(value.get(key), list | dict)]
        value = [item for found in inside for item in (found if isinstance(found, list) else [found])]
        is_item |= any(isinstance(found, list) for found in inside)
    else:
        is_item = True
    for item in value if isinstance(value, list) else ():
        if isinstance(item, list | dict):
            yield from _objects_with_url(item, with_ids=with_ids, is_item=is_item)


def _number(value: dict[str, Any]) -> str:
    """The number of a document in a collection; '' if it has none."""
    found = value.get("docid", value.get("doc_id"))
    return str(found) if isinstance(found, int) else ""


def _first(value: Any, keys: tuple[str, ...]) -> str:
    for key in keys if isinstance(value, dict) else ():
        if isinstance(text := value.get(key), str) and text:
            return text
    return ""


def _all(value: dict[str, Any], keys: tuple[str, ...]) -> str:
    texts = [value[key] for key in keys if key in value]
    return "\n\n".join(dict.fromkeys(text.strip() for text in texts if isinstance(text, str) and text.strip()))


def _sections(heads: list[re.Match[str]], text: str) -> list[str]:
    """The text from each head to the next one."""
    bounds = [head.start() for head in heads] + [len(text)]
    return [text[start:end].strip() for start, end in pairwise(bounds)]


def _add_hits(pages: dict[str, Page], block: str) -> None:
    """Add numbered hits; a line whose number is out of order is part of a snippet.

    Below the heading of smolagents hits are numbered from 0, or have no number.
    """
    page: Page | None = None
    snippet: list[str] = []
    expected = 0 if "\n0. [" in block else 1
    heading = _HEADING.match(block)
    has_numbers = heading is None or f"\n{expected}. [" in block
    for line in block.split("\n"):
        hit = _hit(line, f"{expected}. [" if has_numbers else "[")
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


def _hit(line: str, head: str) -> tuple[str, str] | None:
    """Title and URL of a line `N. [title](url)`; titles can contain brackets and URLs parentheses."""
    if not line.startswith(head) or not (line := line.rstrip()).endswith(")"):
        return None
    title, mark, url = line[len(head) : -1].rpartition("](")
    return (title, url) if mark and len(url.split()) == 1 and url == url.strip() else None
