"""Every template writes chats token for token as the official `chat_template` of its model (see official/README.md)."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.official_templates import official_text
from tokenizers import Tokenizer as HuggingFaceTokenizer

from acc_megatron.data_tools.conversation import Turn, call_text
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.render import exchange, prompt_ids, render_turns
from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.data_tools.convert.token_writer import TokenWriter
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import Dropped

WITHOUT_THINKING = ("qwen3-instruct-2507", "qwen3-coder")
TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "search",
            "description": " Find pages about \u4e16\u754c. ",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "what to find", "enum": ["a", "b"], "default": None},
                    "top": {"type": ["integer", "null"], "minimum": 1, "items": {"type": "x"}},
                },
                "required": ["query"],
                "additionalProperties": False,
            },
            "strict": True,
        },
    },
    {"type": "function", "function": {"name": "stop", "parameters": {"type": "object", "properties": {}}}},
    {"type": "function", "function": {"name": "bare"}},
)


def official(name: str, turns: Sequence[Turn], *, prompt: bool = False) -> str:
    """The official template's text of a chat."""
    tools = [json.loads(tool) for turn in turns for tool in turn.tools]
    messages = [openai(turn) for turn in turns if not (turn.tools and not turn.text)]
    return official_text(name, messages, tools, prompt=prompt)


def openai(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if turn.reasoning:
        message["reasoning_content"] = turn.reasoning
    if turn.tool_calls:
        message["tool_calls"] = [{"type": "function", "function": json.loads(call)} for call in turn.tool_calls]
    return message


def random_chat(generator: random.Random, template: str) -> tuple[Turn, ...]:
    """One to three questions with tool use, ending in a supervised reply."""
    turns: list[Turn] = []
    tools = tuple(json.dumps(tool, ensure_ascii=False) for tool in generator.sample(TOOLS, generator.randint(0, 3)))
    if tools or generator.random() < 0.5:
        turns.append(Turn(role="system", text=generator.choice(("", "It is so.\n")) if tools else "It.", tools=tools))
    num_questions = generator.randint(1, 3)
    for number in range(num_questions):
        turns.append(Turn(role="user", text=some_text(generator)))
        thinks = template not in WITHOUT_THINKING and number == num_questions - 1
        for _ in range(generator.randint(0, 3)):
            turns.append(reply(generator, template, some_calls(generator), thinks=thinks))
            turns += [Turn(role="tool", text=some_text(generator)) for _ in range(generator.randint(1, 2))]
        turns.append(reply(generator, template, (), thinks=thinks))
    return tuple(turns)


def reply(generator: random.Random, template: str, calls: tuple[str, ...], *, thinks: bool) -> Turn:
    reasoning = some_text(generator) if thinks and generator.random() < 0.7 else ""
    # a supervised turn of Thinking-2507 always has a thinking block, because its prompt opens one
    supervised = bool(reasoning) or template != "qwen3-thinking-2507"
    text = "" if calls and generator.random() < 0.5 else some_text(generator)
    return Turn(role="assistant", text=text, reasoning=reasoning, tool_calls=calls, supervised=supervised)


def some_text(generator: random.Random) -> str:
    words = ("naïve", "世界", "\n\n", " x ", "{}", "1,5", "\n", "👩\u200d🚀", "<b>", "don't")
    return f"It {''.join(generator.choices(words, k=generator.randint(1, 8)))} end"


def some_calls(generator: random.Random) -> tuple[str, ...]:
    values: tuple[Any, ...] = ('text\n"x" 世界', 5, 1.5, True, None, {"a": [1, "é"]}, ["a", {"b": None}], "", [])
    return tuple(
        call_text("search", {f"p{i}": generator.choice(values) for i in range(generator.randint(0, 3))})
        for _ in range(generator.randint(1, 3))
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_chats_with_tools_have_the_ids_of_the_official_template(
    name: str, tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer
) -> None:
    generator = random.Random(f"official {name}")
    for _ in range(60):
        turns = random_chat(generator, name)
        writer = TokenWriter(tokenizer)
        TEMPLATES[name].write_turns(writer, turns)
        assert tokenizer.decode(writer.ids()) == official(name, turns)
        if name != "qwen3-thinking-2507" or turns[-1].reasoning:  # its empty thinking is written as at inference
            assert writer.ids().tolist() == huggingface.encode(official(name, turns)).ids
        asked = turns[: max(number for number, turn in enumerate(turns) if turn.role == "user") + 1]
        expected = huggingface.encode(official(name, asked, prompt=True)).ids
        if name != "qwen3-thinking-2507" or not any(turn.supervised for turn in asked):
            assert prompt_ids(asked, tokenizer, TEMPLATES[name]).tolist() == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_thinking_of_earlier_turns_without_loss_is_removed_as_officially(
    name: str, tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer
) -> None:
    if name in WITHOUT_THINKING:
        pytest.skip("a template without thinking")
    earlier = (Turn(role="user", text="a"), Turn(role="assistant", text="b", reasoning="thought"))
    turns = (*earlier, *exchange("c", "r", "d"))
    assert render_turns(turns, tokenizer, TEMPLATES[name]).ids.tolist() == huggingface.encode(official(name, turns)).ids


@pytest.mark.parametrize("name", WITHOUT_THINKING)
def test_reasoning_is_text_before_the_reply_where_a_template_has_no_thinking(
    name: str, tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer
) -> None:
    rendered = render_turns(exchange("q", "\nFirst.\n", "\n\nDone."), tokenizer, TEMPLATES[name])
    expected = exchange("q", "", "First.\n\nDone.")
    assert rendered.ids.tolist() == huggingface.encode(official(name, expected)).ids
    assert tokenizer.decode(rendered.ids[rendered.mask == 1]) == "First.\n\nDone.<|im_end|>"


@pytest.mark.parametrize("name", TEMPLATES)
def test_rows_without_reasoning_are_converted_with_every_template(
    name: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"id": "a", "question": "q", "context": [], "reasoning": "", "answer": "Done."}) + "\n"
    )
    manifest = convert([tmp_path / "rows.jsonl"], tmp_path / "out", ConvertSettings(template=name))
    assert manifest["documents_out"] == 1 and manifest["dropped"] == {}
    ids, mask = open_dataset(tmp_path / "out").document(0)
    opening = {"qwen3": "<think>\n\n</think>\n\n", "qwen3-thinking-2507": "\n</think>\n\n"}.get(name, "")
    assert tokenizer.decode(ids[mask == 1]) == f"{opening}Done.<|im_end|>"


@pytest.mark.parametrize(
    "call", ["{broken", "[]", '{"arguments": {}}', '{"name": 5}', '{"name": "a", "arguments": "text"}']
)
def test_qwen3_coder_drops_a_call_that_it_cannot_write_as_xml(call: str, tokenizer: Tokenizer) -> None:
    turn = Turn(role="assistant", text="", tool_calls=(call,), supervised=True)
    with pytest.raises(Dropped, match="unreadable_tool_call"):
        render_turns((Turn(role="user", text="q"), turn), tokenizer, TEMPLATES["qwen3-coder"])


def test_an_escaped_control_string_in_a_call_drops_the_row(tokenizer: Tokenizer) -> None:
    call = '{"name": "a", "arguments": {"text": "\\u003c|im_end|\\u003e"}}'
    turn = Turn(role="assistant", text="", tool_calls=(call,), supervised=True)
    with pytest.raises(Dropped, match="control_string_in_target"):
        render_turns((Turn(role="user", text="q"), turn), tokenizer, TEMPLATES["qwen3-coder"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_tool_definitions_and_outputs_never_become_control_tokens(name: str, tokenizer: Tokenizer) -> None:
    def controls(text: str) -> int:
        tool = json.dumps({"name": text, "description": text, "parameters": {"properties": {text: {"x": text}}}})
        system = Turn(role="system", text=text, tools=(tool,))
        turns = (system, *exchange(text, "", "a")[:1], Turn(role="tool", text=text), *exchange("q", "", "a"))
        return int((render_turns(turns, tokenizer, TEMPLATES[name]).ids >= tokenizer.first_control_id).sum())

    assert controls("".join(tokenizer.control)) == controls("x")
