"""Tool definitions are read from rows and from system prompts that Qwen's template already wrote."""

import json
from typing import Any

import pytest
from support.official_templates import official_text

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.convert.tool_definitions import tool_definitions, tools_of_row, with_tools

TOOL = {"type": "function", "function": {"name": "search", "description": "Finds </tools>\\n."}}
TEXT = json.dumps(TOOL)


@pytest.mark.parametrize("found", [[TOOL, TOOL], [TEXT, TEXT], f"[{TEXT}, {TEXT}]"])
def test_every_spelling_of_definitions_is_read(found: Any) -> None:
    assert tool_definitions(found) == (TEXT, TEXT)


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}},
        {"name": "f", "description": "d", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
        {"functionDeclarations": [{"name": "f", "description": "d", "parameters": {"type": "object"}}]},
    ],
)
def test_definitions_of_other_apis_become_those_of_openais_chat_api(tool: dict[str, Any]) -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    (read,) = tool_definitions([tool]) or ()
    assert json.loads(read) == {"type": "function", "function": function}
    assert tool_definitions([function]) == (json.dumps(function),)  # as the template writes it


@pytest.mark.parametrize(
    "row",
    [
        {"functions": [TOOL]},
        {"metadata": {"tools": [TEXT]}},
        {"extra_info": {"functions": f"[{TEXT}]"}, "tools": None},
        {"messages": [{"role": "system", "content": "s", "tools": [TOOL]}]},
        {"history": [{"action": "system", "args": {"content": "s", "tools": [TOOL]}}]},
    ],
)
def test_definitions_are_found_wherever_a_row_keeps_them(row: dict[str, Any]) -> None:
    assert tools_of_row(row) == (TEXT,)


def test_what_is_no_definition_is_left_out_unless_it_stands_under_tools() -> None:
    assert tools_of_row({"functions": 3, "config": {"tools": ["bash"]}, "messages": []}) == ()
    assert tools_of_row({"tools": ["bash"]}) is None


@pytest.mark.parametrize("found", [5, "search", {"name": "x"}, [5], ["search"], "{}"])
def test_other_values_are_no_definitions(found: Any) -> None:
    assert tool_definitions(found) is None
    assert tool_definitions(None) == tool_definitions("") == tool_definitions([]) == ()


@pytest.mark.parametrize("system", ["", "Be good."])
def test_a_system_prompt_that_contains_the_tools_is_read_back(system: str) -> None:
    messages = [{"role": "system", "content": system}] if system else []
    written = official_text("qwen3", [*messages, {"role": "user", "content": "q"}], [TOOL, TOOL])
    prompt = written.removeprefix("<|im_start|>system\n").partition("<|im_end|>")[0]
    question = Turn(role="user", text="q")
    turns = with_tools([Turn(role="system", text=prompt), question], ())
    assert turns == (Turn(role="system", text=system, tools=(TEXT, TEXT)), question)


def test_a_system_turn_is_added_for_tools_and_other_prompts_stay() -> None:
    question = Turn(role="user", text="q")
    assert with_tools([question], (TEXT,)) == (Turn(role="system", text="", tools=(TEXT,)), question)
    prompt = Turn(role="system", text="# Tools\n\nNone.")
    assert with_tools([prompt, question], ()) == (prompt, question)
    assert with_tools([question], ()) == (question,)
