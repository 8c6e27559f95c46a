"""Pages and hits are read from every shape of a tool output, and an output that reports an error is no page."""

import json
from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.sources.formats.known_formats import with_openai_messages
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.search.agent import SearchAgent
from acc_megatron.errors import Dropped


def chat(*turns: dict[str, Any], **changes: Any) -> Row:
    """A run in OpenAI's messages that asks who won, and whose answer is Ann."""
    messages = [{"role": "user", "content": "Who won?"}, *turns, {"role": "assistant", "content": "Ann"}]
    value = {"messages": messages, "answer": "Ann"} | changes
    return with_openai_messages(Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32))


def tool(name: str, output: Any, **arguments: Any) -> list[dict[str, Any]]:
    made = {"id": "1", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return [
        {"role": "assistant", "content": "I look.", "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "1", "content": output},
    ]


@pytest.mark.parametrize(
    "output",
    ["Ann won.", {"status": 200, "result": "Ann won."}, {"page": {"html": "Ann won."}}, {"output": "Ann won."}],
)
def test_the_text_of_a_visited_page_is_kept_in_every_shape_of_the_output(output: Any) -> None:
    (page,) = SearchAgent().read(chat(*tool("visit", output, url="a.org")), Resources()).evidence
    assert page.id == "a.org" and "Ann won." in page.text


@pytest.mark.parametrize(
    "output",
    [
        {"data": {"webPages": {"value": [{"name": "Derby", "url": "a.org", "snippet": "Ann won."}]}}},
        {"web": {"results": [{"title": "Derby", "url": "a.org", "description": "Ann won."}]}},
        {"response": {"data": [{"title": "Derby", "link": "a.org", "text": "Ann won."}]}},
    ],
)
def test_hits_are_found_in_nested_results(output: Any) -> None:
    (page,) = SearchAgent().read(chat(*tool("search", output, query="derby")), Resources()).evidence
    assert (page.id, page.title, page.text) == ("a.org", "Derby", "a.org\n\nAnn won.")


TWO = ("Ann won.", "It rained.")


@pytest.mark.parametrize(
    "output",
    [
        {"documents": [{"id": "d1", "contents": TWO[0]}, {"id": "d2", "contents": TWO[1]}]},
        {"result": [[{"document": {"id": "1", "contents": TWO[0]}}, {"document": {"id": "2", "contents": TWO[1]}}]]},
        [{"docid": 1, "text": TWO[0]}, {"docid": 2, "text": TWO[1]}],
        [{"title": "Derby", "snippet": TWO[0]}, {"title": "Hull", "snippet": TWO[1]}],
        {"hits": [{"metadata": {"url": "a.org"}, "text": TWO[0]}, {"metadata": {"url": "b.org"}, "text": TWO[1]}]},
        repr([{"url": "a.org", "snippet": TWO[0]}, {"url": "b.org", "snippet": TWO[1]}]),
        f"Title: Derby\nURL: https://a.org\nContent: {TWO[0]}\n\nTitle: Hull\nURL: https://b.org\nContent: {TWO[1]}",
        f"## Results\n\n- **Title:** Derby\n  **Description:** {TWO[0]}\n  **URL:** a.org\n"
        f"- **Title:** Hull\n  **Description:** {TWO[1]}\n  **URL:** b.org",
        f"URL: a.org\nTitle: Derby\n{TWO[0]}\n---\nURL: b.org\nTitle: Hull\n{TWO[1]}",
        f"Results for 'a':\n1. [Derby](a.org)\n{TWO[0]}\n\n=======\nResults for 'b':\n1. [Hull](b.org)\n{TWO[1]}",
    ],
)  # fmt: skip
def test_every_result_is_a_page(output: Any) -> None:
    pages = SearchAgent().read(chat(*tool("search", output, query="derby")), Resources()).evidence
    assert [page.text.rpartition("\n")[2] for page in pages] == list(TWO)


@pytest.mark.parametrize("arguments", [{"target": "https://a.org/x", "goal": "who won"}, {"what": "the derby", "n": 1}])
def test_the_text_of_a_visit_is_kept_under_every_name_of_its_url(arguments: dict[str, Any]) -> None:
    (page,) = SearchAgent().read(chat(*tool("browse", "Ann won.", **arguments)), Resources()).evidence
    assert page.text.endswith("Ann won.") and ("target" not in arguments or page.id == "https://a.org/x")


def test_an_output_that_is_marked_as_an_error_is_no_evidence() -> None:
    failed = [tool("visit", "The site blocks robots", url="b.org")[0], tool("visit", "", url="b.org")[1]]
    failed[1] |= {"content": "The site blocks robots", "is_error": True}
    run = SearchAgent().read(chat(*failed, *tool("visit", "Ann won.", url="a.org")), Resources())
    assert [piece.id for piece in (*run.evidence, *run.distractors)] == ["a.org"]


def test_an_answer_without_tags_counts_unless_the_prompt_asks_for_tags() -> None:
    made = json.dumps({"name": "visit", "arguments": {"url": "a.org"}})
    called = {"role": "assistant", "content": f"<tool_call>{made}</tool_call>"}
    page = {"role": "user", "content": "<tool_response>Ann won.</tool_response>"}
    assert SearchAgent().read(chat(called, page), Resources()).notes["agent_answer"] == "Ann"
    asked = chat(called, page)
    asked.value["messages"][0]["content"] += " Answer in <answer></answer>."
    with pytest.raises(Dropped, match="no_answer"):
        SearchAgent().read(asked, Resources())


def test_the_question_may_stand_under_query() -> None:
    assert SearchAgent().read(
        chat(*tool("visit", "Ann won.", url="a.org"), query="Who won it?"), Resources()
    ).question == ("Who won it?")


@pytest.mark.parametrize("extract", ["404\n===\n\nPage Not Found", "# Access Denied", "Error 403: Forbidden"])
def test_the_extract_of_an_error_page_is_no_visited_page(extract: str) -> None:
    def visit(url: str, text: str) -> str:
        head = f"The useful information in {url} for user goal check as follows: "
        return f"{head}\n\nEvidence in page: \n{text}\n\nSummary: \nx"

    output = visit("b.org", extract) + "\n=======\n" + visit("a.org", "404 BC: Ann won.")
    run = SearchAgent().read(chat(*tool("visit", output, url=["b.org", "a.org"])), Resources())
    assert [piece.id for piece in run.evidence] == ["a.org"]
