"""Calls and results of tools that a provider runs are read from where its API logs them."""

from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.known_formats import turns_of, with_openai_messages
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of
from acc_megatron.data_tools.sources.resources import Resources

ASK, URL, TEXT = "Who built the tower?", "https://a.org/tower", "The tower was built by Ann Lee."
PAGE = {"type": "document", "title": "Tower", "source": {"type": "text", "media_type": "text/plain", "data": TEXT}}
FOUND = [{"type": "web_search_result", "url": URL, "title": "Tower", "encrypted_content": "Eo8B"}]
CITATION = {"type": "web_search_result_location", "url": URL, "cited_text": "Ann Lee built it in 1897."}
FAILED = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}


def used(name: str, result: Any, kind: str = "server", **given: Any) -> list[dict[str, Any]]:
    result_kind = f"{kind if kind == 'mcp' else name}_tool_result"
    use = {"type": f"{kind}_tool_use", "id": f"{name}1", "name": name, "input": given}
    return [use, {"type": result_kind, "tool_use_id": f"{name}1", "content": result}]


def read(value: dict[str, Any]) -> tuple[Row, Trajectory]:
    row = with_openai_messages(Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32))
    assert agent_of(row.value) is AGENT_KINDS["search"]
    return row, AGENT_KINDS["search"].read(row, Resources())


def test_the_tools_of_anthropic_search_and_fetch() -> None:
    closing = [{"type": "text", "text": "It was "}, {"type": "text", "text": "Ann Lee.", "citations": [CITATION]}]
    thought = {"type": "thinking", "thinking": "I look.", "signature": "x"}
    parts = [thought, *used("web_search", FOUND, query="tower"), *used("web_search", FAILED, query="mill")]
    fetched = {"type": "web_fetch_result", "url": URL, "content": PAGE}
    parts += [*used("web_fetch", fetched, url=URL), *used("look", [{"type": "text", "text": "x"}], "mcp"), *closing]
    chat = [{"role": "user", "content": ASK}, {"role": "assistant", "content": parts}]
    row, run = read({"messages": chat, "answer": "Ann Lee"})
    (page,) = run.evidence
    assert (page.id, page.title, run.reasoning) == (URL, "Tower", "I look.")
    assert page.text == f"{URL}\n\nAnn Lee built it in 1897.\n\n{TEXT}"
    assert run.notes["agent_answer"] == "It was Ann Lee."
    roles = [turn.role for turn in turns_of(row.value, run)]
    assert roles == ["user", *["assistant", "tool"] * 4, "assistant"]


@pytest.mark.parametrize("place", ["messages", "output", "response", "input"])
def test_the_tools_of_the_responses_api_have_their_results_inside(place: str) -> None:
    items = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I look."}]},
        {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search", "query": "tower"}},
        {"type": "mcp_call", "id": "m", "name": "fetch_page", "arguments": f'{{"url": "{URL}"}}', "output": TEXT},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Ann Lee"}]},
    ]
    response = {"object": "response", "output": items}
    rows: dict[str, dict[str, Any]] = {
        "messages": {"messages": [{"role": "user", "content": ASK}, *items]},
        "output": {"input": ASK, **response},
        "response": {"question": ASK, "response": response},
        "input": {"input": [{"role": "user", "content": ASK}], "output": items},
    }
    _, run = read(rows[place] | {"answer": "Ann Lee"})
    assert (run.question, run.reasoning, [piece.id for piece in run.evidence]) == (ASK, "I look.", [URL])


def test_a_run_of_langsmith_has_its_truth_next_to_its_outputs() -> None:
    steps = [[{"tool": "search", "tool_input": "tower", "log": "I look.\nAction: search"}, TEXT]]
    call = {"name": "search", "args": {"query": "tower"}, "id": "1"}
    chat = [{"type": "human", "content": ASK}, {"type": "ai", "content": "I look.", "tool_calls": [call]}]
    chat += [{"type": "tool", "content": TEXT, "tool_call_id": "1"}, {"type": "ai", "content": "Ann Lee"}]
    for outputs in ({"output": "Ann Lee", "intermediate_steps": steps}, {"messages": chat}):
        row = {"inputs": {"question": ASK}, "outputs": outputs, "reference_outputs": {"answer": "Ann Lee"}}
        _, run = read(row)
        assert (run.question, run.answer, run.reasoning) == (ASK, "Ann Lee", "I look.")
        assert [piece.text.rpartition("\n")[2] for piece in run.evidence] == [TEXT]
