"""Notices are known by what they say, so a short observation with the answer stays."""

import json

import pytest

from acc_megatron.data_tools.sources.formats.log_format import Step
from acc_megatron.data_tools.sources.search.notices import is_notice
from acc_megatron.data_tools.sources.search.pages import Page, add_output

ANSWERS = [
    "1972", "August 18, 1967", "Mara Lind", "A", "No", "Yes.", "Zero", "[Paris]", "12%", "北京",
    "OK Computer", "Error Mitigation",
    "Failed State Index", "Exception handling in C++ uses try and catch.",
    "Rate-limiting steps are slow.", "Not Found Band",
    "No one knows who built it.", "No 10 Downing Street", "The page was written by Ann in 1897.", "404 people died.",
    "You have to visit the page of Hull.", "You visited Hull in 1999.", "The debtor was not found guilty.",
    "[1972] The year of the flood", "The bridge is empty.", "Final information on the voyage is in the log of 1912.",
    "Errors of the first kind are false positives.", "Success is a town in Missouri.", "Timeout is a magazine.",
]  # fmt: skip
NOTICES = [
    "rate limited", "Rate limit exceeded. Please wait.", "Too many requests", "No results found.",
    "No results", "[]", "None",
    "There are no search results for 'x y'.", "Found 0 results", "not found", "404 Not Found",
    "HTTP 429: Too Many Requests",
    "Error: 404", "Error 503", "[error] no", "Failed to fetch https://a.org/b", "Traceback (most recent call last): x",
    "HTTPError: 403 Client Error: Forbidden for url: https://a.org", "Search failed", "The request timed out.", "...",
    "Access denied", "Just a moment...", "Could not find [Ann Li]. Similar: ['Ann Lee']", "Invalid action: Foo", "{}",
    "[visit] Failed to read page.", "The page https://a.org was not found", "Sorry, no information is available.",
    "Timeout", "Connection reset by peer", "API quota exceeded",
    "The maximum search limit is exceeded. You are not allowed to search.",
    "You have reached the search limit. You are not allowed to search.",
    "You have searched this query. Please refer to previous results.", "You have already clicked this URL.",
    "**Final Information**\n\nNo helpful information found.", "No helpful information found.",
    "No helpful information found.**Explanation** None of the three pages states who built the tower.",
    "Google Scholar Timeout, return None, Please try again later.", "Search Time out.",
    "The information of the current page is not accessible",
    "The webpage content could not be processed, and therefore, no information is available.",
    "Empty result from google_search tool, please try again.", "0 results",
    "The google search API is temporarily unavailable, please try again later.",
    "The search string was not found on this page.", "Ill-formed search. Use the format Search[...]",
    "There is no information that can be matched from the database. Please try another query.",
    "No good Google Search Result was found", "No search results found. Please try a different query.",
    "Query content cannot be empty", "[Search] Invalid request format: Input must be a JSON object with 'query'",
    "Page 'Ann Lee' does not exist.", "Access to this page has been denied", "Unable to get the page: 403",
    f"Could not find [Ann Li]. Similar: [{', '.join(['Ann Lee of the tower'] * 40)}]",
    "The last page Retrieved was not found, so you cannot Lookup a keyword in it.",
    "Your search - ann lee - did not match any documents.", "No wikipedia page found for x",
]  # fmt: skip


@pytest.mark.parametrize("text", ANSWERS)
def test_a_short_text_that_says_something_is_a_page(text: str) -> None:
    assert not is_notice(text)
    pages: dict[str, Page] = {}
    assert add_output(pages, Step(tool="search", arguments={"query": "q"}, output=text))
    assert [list(page.texts) for page in pages.values()] == [[text]]


@pytest.mark.parametrize("text", NOTICES)
@pytest.mark.parametrize(("tool", "arguments"), [("search", {"query": "q"}), ("visit", {"url": "https://a.org"})])
def test_a_notice_is_no_page(text: str, tool: str, arguments: dict[str, str]) -> None:
    pages: dict[str, Page] = {}
    assert not add_output(pages, Step(tool=tool, arguments=arguments, output=text)) and not pages


@pytest.mark.parametrize("value", [{"results": []}, {"error": "quota"}, {"organic": [], "query": "q"}, [], {}])
def test_an_empty_json_result_is_no_page(value: object) -> None:
    pages: dict[str, Page] = {}
    assert not add_output(pages, Step(tool="search", arguments={"query": "q"}, output=json.dumps(value))) and not pages


def test_a_long_text_is_a_page_even_if_it_begins_like_a_notice() -> None:
    assert not is_notice("Not found for years, the wreck " + "lay in the bay. " * 40)
