"""A chat is the same run in every spelling of its roles, calls, outputs and thoughts."""

import json
from typing import Any

import pytest

from acc_megatron.data_tools.sources.formats.known_formats import transcript_of
from acc_megatron.data_tools.sources.formats.log_format import Step

ARGUMENTS = {"url": "a.org"}
CALL: dict[str, Any] = {"id": "1", "function": {"name": "visit", "arguments": json.dumps(ARGUMENTS)}}
TEXT_CALL = "<tool_call>" + json.dumps({"name": "visit", "arguments": ARGUMENTS}) + "</tool_call>"
ASK = {"role": "user", "content": "Who?"}
AGENT: dict[str, Any] = {"role": "assistant", "content": "I open.", "tool_calls": [CALL]}
PAGE = {"role": "tool", "tool_call_id": "1", "content": "A page."}
SILENT = AGENT | {"content": ""}
BARE = {"role": "assistant", "content": "I open."}
SPELLINGS: list[list[dict[str, Any]]] = [
    [AGENT, PAGE],
    [BARE | {"toolCalls": [CALL]}, {"role": "tool", "toolCallId": "1", "content": "A page."}],
    [AGENT | {"role": "Assistant"}, PAGE | {"role": "Tool"}],
    [AGENT | {"role": "bot"}, PAGE | {"role": "environment"}],
    *([AGENT, PAGE | {"role": role}] for role in ("tool_result", "tool_response", "tool_output")),
    [BARE, {"role": "tool_call", "content": json.dumps({"name": "visit", "arguments": ARGUMENTS})}, PAGE],
    [
        {"from": "gpt", "value": "<think>I open.</think>"},
        {"from": "function_call", "value": json.dumps({"name": "visit", "arguments": ARGUMENTS})},
        {"from": "observation", "value": "A page."},
    ],
    *([AGENT | {"tool_calls": [CALL | {key: "A page."}]}] for key in ("result", "output", "response")),
    [AGENT, {"role": "tool", "content": [{"tool_call_id": "1", "output": "A page."}]}],
    [SILENT | {"thinking": "I open."}, PAGE],
    [SILENT | {"reasoning_details": [{"type": "reasoning.text", "text": "I open."}]}, PAGE],
    [SILENT | {"thinking_blocks": [{"type": "thinking", "thinking": "I open.", "signature": "x"}]}, PAGE],
    [SILENT | {"content": [{"type": "reasoning", "text": "I open."}]}, PAGE],
    [
        {"role": "assistant", "content": f"I open.\n</think>\n{TEXT_CALL}"},
        {"role": "user", "content": "<tool_response>A page.</tool_response>"},
    ],
]


def steps_of(messages: list[dict[str, Any]]) -> tuple[Step, ...]:
    return transcript_of({"messages": [ASK, *messages, {"role": "assistant", "content": "Ann"}]}).steps


@pytest.mark.parametrize("messages", SPELLINGS)
def test_every_spelling_is_the_same_step(messages: list[dict[str, Any]]) -> None:
    (step,) = steps_of(messages)
    assert (step.thought.strip(), step.tool, step.arguments) == ("I open.", "visit", ARGUMENTS)
    assert step.output.strip() == "A page."


def test_outputs_of_several_calls_in_one_message_belong_to_the_calls_that_they_name() -> None:
    other = {"id": "2", "function": {"name": "visit", "arguments": '{"url": "b.org"}'}}
    listed = [{"tool_call_id": "2", "output": {"t": "B"}}, {"tool_call_id": "1", "output": "A"}]
    first, second = steps_of([AGENT | {"tool_calls": [CALL, other]}, {"role": "tool", "content": listed}])
    assert (first.output, second.output) == ("A", '{"t": "B"}')


@pytest.mark.parametrize(
    "output",
    [
        PAGE | {"is_error": True},
        PAGE | {"status": "error"},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "1", "is_error": True, "content": "A page."}],
        },
    ],
)
def test_an_output_that_is_marked_as_an_error_says_so(output: dict[str, Any]) -> None:
    assert steps_of([AGENT, output])[0].output == "Error: A page."


def test_langchain_marks_an_error_by_its_status() -> None:
    call = {"name": "visit", "args": ARGUMENTS, "id": "1"}
    run = [
        {"type": "human", "content": "Who?"},
        {"type": "ai", "content": "I open.", "tool_calls": [call]},
        {"type": "tool", "content": "blocked", "tool_call_id": "1", "status": "error"},
    ]
    assert transcript_of({"messages": run}).steps[0].output == "Error: blocked"
