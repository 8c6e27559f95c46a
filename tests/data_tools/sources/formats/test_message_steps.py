"""The same run has the same steps in every chat format."""

import json
from typing import Any

import pytest

from acc_megatron.data_tools.sources.formats.known_formats import format_of, tool_names, transcript_of
from acc_megatron.data_tools.sources.formats.log_format import Step
from acc_megatron.data_tools.sources.formats.text_calls import calls_in_text, text_without_calls
from acc_megatron.errors import Dropped

ASK: dict[str, Any] = {"role": "user", "content": "Where?"}
END: dict[str, Any] = {"role": "assistant", "content": "Here."}
STEPS = (
    Step(thought="I look.", tool="find", arguments={"q": "x"}, output="one"),
    Step(thought="", tool="open", arguments={"url": "u"}, output="two"),
)


def openai(call_id: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


OPENAI = [
    {"role": "system", "content": "s"},
    ASK,
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [openai("a", "find", q="x"), openai("b", "open", url="u")],
    },
    {"role": "tool", "tool_call_id": "b", "content": "two"},
    {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "one"}]},
    END,
]
ANTHROPIC = [
    ASK,
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "a", "name": "find", "input": {"q": "x"}},
            {"type": "tool_use", "id": "b", "name": "open", "input": {"url": "u"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "b", "content": "two"},
            {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "one"}]},
        ],
    },
    END,
]
TAGGED = [
    ASK,
    {
        "role": "assistant",
        "content": '<think>I look.</think>\n<tool_call>{"name": "find", "arguments": {"q": "x"}}</tool_call>'
        '<tool_call>{"name": "open", "arguments": "{\\"url\\": \\"u\\"}"}</tool_call>',
    },
    {"role": "user", "content": "<tool_response>one</tool_response><tool_response>two</tool_response>"},
    END,
]
FUNCTIONS = [
    ASK,
    {
        "role": "assistant",
        "content": "I look.\n<function=find>\n<parameter=q>x</parameter>\n</function>\n"
        "<function=open><parameter=url>\nu\n</parameter></function>",
    },
    {"role": "user", "content": "one"},
    {"role": "user", "content": "two"},
    END,
]
GENERIC = [
    {"thought": "I look.", "tool": "find", "input": {"q": "x"}, "output": "one"},
    {"tool": "open", "input": '{"url": "u"}', "output": "two"},
]


@pytest.mark.parametrize("messages", [OPENAI, ANTHROPIC, TAGGED, FUNCTIONS])
def test_the_same_run_in_every_chat_format_has_the_same_steps(messages: list[dict[str, Any]]) -> None:
    found = transcript_of({"messages": messages})
    assert (found.prompt, found.steps, found.final) == ("Where?", STEPS, "Here.")
    assert found.thoughts() == "I look." and tool_names({"messages": messages}) == {"find", "open"}


def test_generic_steps_have_the_same_steps() -> None:
    assert transcript_of({"question": "Where?", "steps": GENERIC}).steps == STEPS
    assert tool_names({"steps": GENERIC}) == {"find", "open"}


def test_react_text_and_fenced_commands_are_calls() -> None:
    react = "Thought: I look.\nAction 1: Search[Santa Claus (horse)]"
    assert calls_in_text(react) == [("Search", {"input": "Santa Claus (horse)"})]
    assert text_without_calls("Thought: I look.\nAction: Search[x]") == "I look."
    named = 'Action: web_search\nAction Input: {"query": "x"}\nObservation: made up'
    assert calls_in_text(named) == [("web_search", {"query": "x"})]
    bash = "THOUGHT: I look.\n\n```bash\ncat a.py\n```\n"
    assert calls_in_text(bash) == [("bash", {"command": "cat a.py"})]
    assert calls_in_text("<answer>\n```bash\nls\n```\n</answer>") == []
    assert calls_in_text("Action: think hard about it\nplain text") == []


def test_a_code_block_without_a_language_is_a_call_only_on_request() -> None:
    text = "First\n```\nnot this\n```\nLet me look.\n```\nopen a.py\n```\n"
    assert calls_in_text(text) == []
    assert calls_in_text(text, fences="plain") == [("bash", {"command": "open a.py"})]
    assert text_without_calls(text, fences="plain") == "First\n```\nnot this\n```\nLet me look."
    for broken in ("```\nopen a.py", "open\n```", "```python\nx\n```"):
        assert calls_in_text(broken, fences="plain") == [] and text_without_calls(broken, fences="plain")


def test_an_output_without_a_call_is_kept_and_demonstrations_are_not() -> None:
    demo = {"role": "assistant", "content": "```bash\nls\n```", "is_demo": True}
    broken = {"role": "assistant", "content": "<tool_call>{</tool_call>"}
    found = transcript_of({"messages": [ASK, demo, broken, {"role": "tool", "content": "late"}]})
    assert found.steps == (Step(arguments={}, output="late"),) and found.final == ""


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [{"role": "assistant", "content": 5}]},
        {"messages": [{"role": 3, "content": "x"}, ASK]},
        {"messages": [{"role": "user", "content": {"a": 1}}]},
        {"steps": [{"tool": 3, "output": "x"}]},
    ],
)
def test_fields_of_other_types_are_malformed(value: dict[str, Any]) -> None:
    assert format_of(value)
    with pytest.raises(Dropped, match="malformed"):
        transcript_of(value)


def test_a_row_without_a_list_of_objects_has_no_format() -> None:
    for value in (
        {},
        {"messages": []},
        {"messages": "x"},
        {"messages": [1]},
        {"steps": [None]},
        {"messages": [{"a": 1}]},
    ):
        assert format_of(value) is None and tool_names(value) == set()


@pytest.mark.parametrize("mark", ["assistantcommentary to=", "<|start|>assistant<|channel|>commentary to="])
def test_a_thought_of_gpt_oss_ends_where_it_writes_a_call(mark: str) -> None:
    text = f'We search. {mark}functions.search json{{"query": "tower"}}assistantcommentaryAnn Lee built it.'
    call = {"id": "1", "function": {"name": "search", "arguments": {"query": "tower"}}}
    messages = [{"role": "assistant", "content": text, "tool_calls": [call]}, {"role": "tool", "content": "Bo Ek."}]
    (step,) = transcript_of({"messages": messages}).steps
    assert (step.thought, step.output) == ("We search.", "Bo Ek.")


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ('{"name": "run", "arguments": {}}\n<code>\nprint(1)\n</code>', {"code": "print(1)"}),
        ("run\n<arg_key>query</arg_key>\n<arg_value>tower</arg_value>\n", {"query": "tower"}),
        ('{"name": "run", "arguments": {"query": "tower"}}', {"query": "tower"}),
    ],
)
def test_a_tagged_call_can_have_code_or_a_tag_for_each_argument(written: str, arguments: dict[str, Any]) -> None:
    (call,) = calls_in_text(f"<think>I look.</think><tool_call>{written}</tool_call><tool_call>no call</tool_call>")
    assert (call.tool, call.arguments) == ("run", arguments)
