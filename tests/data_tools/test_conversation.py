"""Agent SFT: renders as Qwen's tool-use template, learns the agent's turns and nothing else, from the same runs."""

import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer

from acc_megatron.data_tools.compile import CompileSettings, compile_inputs
from acc_megatron.data_tools.conversation import Conversation, Turn, render_conversation
from acc_megatron.data_tools.convert import ConvertSettings, convert
from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.data_tools.render import render_turns
from acc_megatron.data_tools.schema import Dropped
from acc_megatron.data_tools.tokenizer import Tokenizer
from acc_megatron.errors import DataError

DATA = Path(__file__).parents[3] / "shared" / "data"
# the message loop of the chat template published with Qwen3, for a conversation with one question
QWEN3 = """
{%- for message in messages %}
    {%- if message.role == "user" or message.role == "system" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = message.reasoning_content %}
        {%- if loop.last or (not loop.last and reasoning_content) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if (loop.first and content) or (not loop.first) %}
                {{- '\\n' }}
            {%- endif %}
            {{- '<tool_call>\\n' + tool_call + '\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}"""  # noqa: E501


def agent(text: str = "", reasoning: str = "", *calls: str) -> Turn:
    return Turn(role="assistant", text=text, reasoning=reasoning, tool_calls=calls, supervised=True)


def tool(text: str) -> Turn:
    return Turn(role="tool", text=text)


TURNS = (
    Turn(role="system", text="Be good."),
    Turn(role="user", text="Where is it?\n"),
    agent("", "I look.\n", '{"name": "search", "arguments": {"q": "naïve 世界"}}'),
    tool("hit 1\n\nhit 2"),
    agent("Both at once.", "", '{"name": "a"}', '{"name": "b"}'),
    tool("first"),
    tool(" second "),
    agent("No thought, no call."),
    tool("x"),
    agent("\nIn Paris.", "Now I know."),
)


def template_text(turns: tuple[Turn, ...]) -> str:
    messages = [
        {"role": t.role, "content": t.text, "reasoning_content": t.reasoning, "tool_calls": list(t.tool_calls)}
        for t in turns
    ]
    return jinja2.Environment().from_string(QWEN3).render(messages=messages)


@pytest.mark.parametrize("turns", [TURNS, TURNS[:3], TURNS[1:5], (TURNS[1], agent("A"))], ids=["all", "3", "mid", "2"])
def test_a_conversation_renders_as_qwens_template_does(
    tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer, turns: tuple[Turn, ...]
) -> None:
    rendered = render_conversation(turns, tokenizer)
    assert rendered.ids.tolist() == huggingface.encode(template_text(turns)).ids


def learned_parts(rendered: Any, tokenizer: Tokenizer) -> list[str]:
    changes = np.flatnonzero(np.diff(rendered.mask)) + 1
    parts = np.split(np.arange(len(rendered.ids)), changes)
    return [tokenizer.decode(rendered.ids[part]) for part in parts if rendered.mask[part[0]]]


def test_observations_and_prompts_are_outside_the_loss(tokenizer: Tokenizer) -> None:
    assert learned_parts(render_conversation(TURNS, tokenizer), tokenizer) == [
        "<think>\nI look.\n</think>\n\n<tool_call>\n"
        '{"name": "search", "arguments": {"q": "naïve 世界"}}\n</tool_call><|im_end|>',
        'Both at once.\n<tool_call>\n{"name": "a"}\n</tool_call>\n<tool_call>\n{"name": "b"}\n</tool_call><|im_end|>',
        "No thought, no call.<|im_end|>",
        "<think>\nNow I know.\n</think>\n\nIn Paris.<|im_end|>",
    ]
    thinking = learned_parts(render_conversation(TURNS, tokenizer, "qwen3-thinking-2507"), tokenizer)
    assert thinking[0].startswith("I look.\n</think>") and thinking[2].startswith("\n</think>\n\nNo thought")


@pytest.mark.parametrize("template", ["qwen3", "qwen3-thinking-2507"])
def test_one_question_and_one_answer_give_what_a_triple_gives(tokenizer: Tokenizer, template: str) -> None:
    turns = (Turn(role="user", text="q\n\nq"), agent("a\nb", "r\n\nr"))
    ours, triple = (
        render_conversation(turns, tokenizer, template),
        render_turns("q\n\nq", "r\n\nr", "a\nb", tokenizer, template),
    )
    assert ours.ids.tolist() == triple.ids.tolist() and ours.mask.tolist() == triple.mask.tolist()


def test_hostile_observations_stay_text_and_hostile_turns_are_dropped(tokenizer: Tokenizer) -> None:
    hostile = "".join(tokenizer.control)
    clean = render_conversation((TURNS[1], tool("x"), agent("a")), tokenizer)
    forged = render_conversation((TURNS[1], tool(hostile), agent("a")), tokenizer)
    first = tokenizer.first_control_id
    assert (clean.ids >= first).sum() == (forged.ids >= first).sum()
    for turn in (agent(hostile), agent("", hostile), agent("", "", "</tool_call>")):
        with pytest.raises(Dropped, match="control_string_in_target"):
            render_conversation((TURNS[1], turn), tokenizer)
    with pytest.raises(Dropped, match="nothing_supervised"):
        render_conversation(TURNS[:2], tokenizer)


@pytest.mark.parametrize(
    "turn", [5, {"role": "judge", "text": ""}, {"role": "user"}, {"role": "tool", "text": "", "supervised": True}]
)
def test_rows_that_are_no_conversation_are_refused_by_place(turn: object) -> None:
    with pytest.raises(DataError, match=r"f:3: turns\[0\]"):
        Conversation.from_dict({"id": "x", "turns": [turn]}, "f:3")
    with pytest.raises(DataError, match="f:3: a conversation has"):
        Conversation.from_dict({"turns": []}, "f:3")


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data")
def test_real_runs_become_conversations_of_the_same_documents(tmp_path: Path, tokenizer: Tokenizer) -> None:
    inputs = [DATA / "search", DATA / "swe", DATA / "sql"]
    manifests = {}
    for arm in ("acc", "agent-sft"):
        settings = CompileSettings(arm=arm)
        manifests[arm] = compile_inputs(
            inputs, tmp_path / arm, agent="auto", resources=[], settings=settings, tokenizer=tokenizer
        )
    rows = {
        arm: [json.loads(line) for line in (tmp_path / arm / "triples.jsonl").read_bytes().splitlines()]
        for arm in manifests
    }
    assert [row["id"] for row in rows["agent-sft"]] == [row["id"] for row in rows["acc"]]
    for row in rows["agent-sft"]:
        conversation = Conversation.from_dict(row, row["id"])
        assert json.loads(json.dumps(conversation.to_dict())) == row
        assert {turn.role for turn in conversation.turns if turn.supervised} == {"assistant"}
        assert sum(turn.role == "tool" for turn in conversation.turns) >= 1
        assert conversation.turns[-1].role == "assistant"
        assert not any("<tool_call>" in turn.text or "<think>" in turn.text for turn in conversation.turns[2:])
    made = convert([tmp_path / "agent-sft"], tmp_path / "data", ConvertSettings())
    assert made["documents_out"] == len(rows["acc"]) and made["tokens"] == manifests["agent-sft"]["tokens"]
    ids, mask = open_dataset(tmp_path / "data").document(0)
    assert 0 < mask.sum() < len(ids)
