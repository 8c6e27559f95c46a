"""Every list of messages is rewritten in OpenAI's form; everything else stays as it is."""

import json
from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.sources.formats.known_formats import transcript_of, turns_of, with_openai_messages
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of
from acc_megatron.data_tools.sources.resources import Resources, is_resource

HITS = json.dumps([{"url": "https://a.org/x", "title": "X", "snippet": "about x"}])
CALL_ARGUMENTS = {"query": "q"}
CALL = {"name": "search", "arguments": '{"query": "q"}'}
RESULT = {"role": "tool", "content": HITS}
ASK, END = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}
CALLED: dict[str, Any] = {"role": "assistant", "content": None}
LAYOUTS: dict[str, dict[str, Any]] = {
    "openai": {"messages": [ASK, CALLED | {"tool_calls": [{"id": "1", "function": CALL}]}, RESULT, END]},
    "flat calls": {"messages": [ASK, CALLED | {"tool_calls": [CALL]}, RESULT, END]},
    "function call": {"messages": [ASK, CALLED | {"function_call": CALL}, RESULT | {"role": "function"}, END]},
    "json text": {"messages": json.dumps([ASK, CALLED | {"tool_calls": [CALL]}, RESULT, END])},
    "null next to reasoning": {
        "messages": [ASK, CALLED | {"reasoning_content": None}, CALLED | {"tool_calls": [CALL]}, RESULT, END]
    },
    "an empty history next to messages": {
        "messages": [ASK, CALLED | {"tool_calls": [CALL]}, RESULT, END],
        "history": [],
    },
    "history": {"history": [ASK, CALLED | {"tool_calls": [CALL]}, RESULT, END]},
    "items of responses": {
        "messages": [
            ASK | {"content": [{"type": "input_text", "text": "Who?"}]},
            {"type": "reasoning", "summary": []},
            CALL | {"type": "function_call", "call_id": "1"},
            {"type": "function_call_output", "call_id": "1", "output": HITS},
            END | {"type": "message", "content": [{"type": "output_text", "text": "Ann."}]},
        ]
    },
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "Who?"},
            {"from": "function_call", "value": json.dumps(CALL)},
            {"from": "observation", "value": HITS},
            {"from": "gpt", "value": "Ann."},
        ]
    },
    "arguments as args": {
        "messages": [
            ASK,
            CALLED | {"tool_calls": [{"id": "1", "type": "tool_call", "name": "search", "args": {"query": "q"}}]},
            RESULT | {"tool_call_id": "1"},
            END,
        ]
    },
    "a result as a list of objects": {
        "messages": [ASK, CALLED | {"tool_calls": [CALL]}, RESULT | {"content": json.loads(HITS)}, END]
    },
    "a result as a list of strings": {
        "messages": [ASK, CALLED | {"tool_calls": [CALL]}, RESULT | {"content": [HITS]}, END]
    },
    "a result as an object": {
        "messages": [
            ASK,
            CALLED | {"tool_calls": [CALL]},
            RESULT | {"content": {"results": json.loads(HITS)}},
            END,
        ]
    },
    "calls in a list of parts": {
        "messages": [
            ASK,
            {
                "role": "assistant",
                "content": [{"type": "text", "text": f"<tool_call>{json.dumps(CALL)}</tool_call>"}],
            },
            {"role": "user", "content": [{"type": "text", "text": f"<tool_response>{HITS}</tool_response>"}]},
            END,
        ]
    },
    "langchain": {
        "messages": [
            {"type": "human", "content": "Who?"},
            {"type": "ai", "content": "", "tool_calls": [{"name": "search", "args": {"query": "q"}, "id": "1"}]},
            {"type": "tool", "content": HITS, "tool_call_id": "1", "name": "search"},
            {"type": "ai", "content": "Ann."},
        ]
    },
    "langchain with data": {
        "messages": [
            {"type": "human", "data": {"content": "Who?"}},
            {
                "type": "ai",
                "data": {"content": "", "additional_kwargs": {"tool_calls": [{"id": "1", "function": CALL}]}},
            },
            {"type": "tool", "data": {"content": HITS, "tool_call_id": "1"}},
            {"type": "ai", "data": {"content": "Ann."}},
        ]
    },
    "langchain constructors": {
        "messages": [
            {"lc": 1, "type": "constructor", "id": ["langchain", "schema", name], "kwargs": kwargs}
            for name, kwargs in (
                ("HumanMessage", {"content": "Who?"}),
                ("AIMessage", {"content": "", "tool_calls": [{"name": "search", "args": {"query": "q"}}]}),
                ("ToolMessage", {"content": HITS}),
                ("AIMessage", {"content": "Ann."}),
            )
        ]
    },
    "gemini": {
        "contents": [
            {"role": "user", "parts": [{"text": "Who?"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "search", "args": {"query": "q"}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "search", "response": {"result": HITS}}}]},
            {"role": "model", "parts": [{"text": "Ann."}]},
        ]
    },
    "gemini in snake case": {
        "contents": [
            {"parts": [{"text": "Who?"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "I search.", "thought": True},
                    {"function_call": {"id": "1", "name": "search", "args": {"query": "q"}}},
                ],
            },
            {
                "role": "function",
                "parts": [{"function_response": {"id": "1", "response": {"results": json.loads(HITS)}}}],
            },
            {"role": "model", "parts": [{"text": "Ann."}]},
        ]
    },
    "smolagents": {
        "question": "Who?",
        "intermediate_steps": [
            {"system_prompt": "s"},
            {
                "step_number": 1,
                "model_output": "I search.",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "search", "arguments": CALL_ARGUMENTS}}
                ],
                "observations": HITS,
            },
            {
                "step_number": 2,
                "model_output": "",
                "tool_calls": [{"id": "2", "name": "final_answer", "arguments": {"answer": "Ann."}}],
                "observations": "Ann.",
            },
        ],
    },
    "browsecomp-plus": {
        "question": "Who?",
        "result": [
            {"type": "reasoning", "tool_name": None, "arguments": None, "output": ["I search."]},
            {"type": "tool_call", "tool_name": "search", "arguments": '{"query": "q"}', "output": HITS},
            {"type": "output_text", "tool_name": None, "arguments": None, "output": "Ann."},
        ],
    },
    "sharegpt with tags": {
        "conversations": [
            {"from": "human", "value": "Who?"},
            {"from": "gpt", "value": f"<tool_call>{json.dumps(CALL)}</tool_call>"},
            {"from": "human", "value": f"<tool_response>{HITS}</tool_response>"},
            {"from": "gpt", "value": "<answer>Ann.</answer>"},
        ]
    },
}


def plain(value: dict[str, Any]) -> Row:
    return with_openai_messages(Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_search_run_in_every_message_format(name: str) -> None:
    row = plain(LAYOUTS[name] | {"answer": "Ann"})
    assert agent_of(row.value) is AGENT_KINDS["search"]
    found = AGENT_KINDS["search"].read(row, Resources())
    assert (found.question, found.notes["agent_answer"].rstrip(".")) == ("Who?", "Ann")
    assert [(piece.id, piece.title) for piece in found.evidence] == [("https://a.org/x", "X")]
    turns = turns_of(row.value, found)
    assert [turn.text for turn in turns if turn.role == "user"] == ["Who?"]
    calls = [json.loads(call) for turn in turns for call in turn.tool_calls]
    calls = [call for call in calls if call["name"] != "final_answer"]
    assert [(call["name"], call["arguments"]) for call in calls] in (
        [("search", {"query": "q"})],
        [("search", CALL["arguments"])],
    )


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"messages": "[1, 2"},
        {"messages": "Who?"},
        {"messages": '["\\ud800"]'},
        {"messages": [1, {"role": "user"}]},
        {"trajectory": [{"action": "ls", "observation": "a"}]},
        {"messages": {"role": "user"}},
    ],
)
def test_a_field_that_is_not_a_list_of_messages_stays_as_it_is(value: dict[str, Any]) -> None:
    assert plain(value).value == value


def test_a_row_with_messages_under_any_key_is_a_run_and_not_an_instance(tmp_path: Any) -> None:
    row = {"instance_id": "o__t-1", "patch": "the agent's own"}
    assert is_resource(row)
    for key in ("messages", "history", "trajectory", "conversation", "conversations", "steps", "turn_history"):
        assert not is_resource(row | {key: []})
    (tmp_path / "runs.jsonl").write_text(json.dumps(row | {"conversations": []}) + "\n")
    assert not discover([tmp_path / "runs.jsonl"]).resources.instances


def test_results_without_ids_belong_to_the_tools_that_they_name() -> None:
    calls = [{"name": "search", "args": {"query": "q"}}, {"name": "visit", "args": {"url": "https://a.org/x"}}]
    results = [{"role": "tool", "name": "visit", "content": "the page"}, RESULT | {"name": "search"}]
    run = {"messages": [ASK, CALLED | {"tool_calls": calls}, *results, END], "answer": "Ann"}
    steps = transcript_of(plain(run).value).steps
    assert [(step.tool, step.output) for step in steps] == [("search", HITS), ("visit", "the page")]


def test_thinking_parts_are_reasoning() -> None:
    parts = [
        {"type": "thinking", "thinking": "I search.", "signature": "s"},
        {"type": "tool_use", "id": "1", "name": "search", "input": {"query": "q"}},
    ]
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": json.loads(HITS)}]}
    row = plain({"messages": [ASK, {"role": "assistant", "content": parts}, result, END], "answer": "Ann"})
    found = AGENT_KINDS["search"].read(row, Resources())
    assert (found.reasoning, [piece.id for piece in found.evidence]) == ("I search.", ["https://a.org/x"])
    assert turns_of(row.value, found)[1].reasoning == "I search."


def test_documents_of_a_retriever_with_ids_are_pages() -> None:
    hits = [{"docid": "17", "score": 1.5, "snippet": "about x"}, {"docid": "4", "score": 1.0, "text": "about y"}]
    result = [
        {"type": "tool_call", "tool_name": "search", "arguments": "{}", "output": json.dumps(hits)},
        {"type": "tool_call", "tool_name": "get_document", "arguments": '{"docid": "4"}', "output": "all of y"},
        {"type": "output_text", "tool_name": None, "arguments": None, "output": "Ann."},
    ]
    row = plain({"question": "Who?", "result": result, "answer": "Ann"})
    assert agent_of(row.value) is AGENT_KINDS["search"]
    found = AGENT_KINDS["search"].read(row, Resources())
    (page,), (other,) = found.evidence, found.distractors
    assert page.text == "4\n\nabout y\n\nall of y", "a document that the agent asked for is visited"
    assert (other.id, other.text) == ("17", "17\n\nabout x")
