"""The Qwen3 templates write tool use as the official template does; the loss covers the agent's turns only."""

from typing import Any
from unicodedata import normalize

import jinja2
import numpy as np
import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.convert.render import exchange, prompt_ids, render_turns
from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import Dropped

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
def test_a_conversation_has_the_ids_of_the_official_template(
    tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer, turns: tuple[Turn, ...]
) -> None:
    rendered = render_turns(turns, tokenizer)
    assert rendered.ids.tolist() == huggingface.encode(template_text(turns)).ids


def supervised_parts(rendered: Any, tokenizer: Tokenizer) -> list[str]:
    changes = np.flatnonzero(np.diff(rendered.mask)) + 1
    parts = np.split(np.arange(len(rendered.ids)), changes)
    return [tokenizer.decode(rendered.ids[part]) for part in parts if rendered.mask[part[0]]]


def test_observations_and_prompts_are_masked_from_the_loss(tokenizer: Tokenizer) -> None:
    assert supervised_parts(render_turns(TURNS, tokenizer), tokenizer) == [
        "<think>\nI look.\n</think>\n\n<tool_call>\n"
        '{"name": "search", "arguments": {"q": "naïve 世界"}}\n</tool_call><|im_end|>',
        'Both at once.\n<tool_call>\n{"name": "a"}\n</tool_call>\n<tool_call>\n{"name": "b"}\n</tool_call><|im_end|>',
        "No thought, no call.<|im_end|>",
        "<think>\nNow I know.\n</think>\n\nIn Paris.<|im_end|>",
    ]
    thinking = supervised_parts(render_turns(TURNS, tokenizer, TEMPLATES["qwen3-thinking-2507"]), tokenizer)
    assert thinking[0].startswith("I look.\n</think>") and thinking[2].startswith("\n</think>\n\nNo thought")


def test_control_strings_stay_text_in_observations_and_drop_the_row_in_agent_turns(tokenizer: Tokenizer) -> None:
    hostile = "".join(tokenizer.control)
    clean = render_turns((TURNS[1], tool("x"), agent("a")), tokenizer)
    forged = render_turns((TURNS[1], tool(hostile), agent("a")), tokenizer)
    first = tokenizer.first_control_id
    assert (clean.ids >= first).sum() == (forged.ids >= first).sum()
    for turn in (agent(hostile), agent("", hostile), agent("", "", "</tool_call>")):
        with pytest.raises(Dropped, match="control_string_in_target"):
            render_turns((TURNS[1], turn), tokenizer)
    with pytest.raises(Dropped, match="nothing_supervised"):
        render_turns(TURNS[:2], tokenizer)


@pytest.mark.parametrize(("name", "prefix"), [("qwen3", ""), ("qwen3-thinking-2507", "<think>\n")])
def test_a_prompt_has_the_ids_of_the_official_template(
    name: str, prefix: str, tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer
) -> None:
    turns = (TURNS[0], TURNS[1], Turn(role="assistant", text="\nEarlier."), Turn(role="user", text="And now?"))
    expected = huggingface.encode(f"{template_text(turns)}<|im_start|>assistant\n{prefix}").ids
    template = TEMPLATES[name]
    assert prompt_ids(turns, tokenizer, template).tolist() == expected
    assert template.generation_prefix == prefix


def test_thinking_is_switched_as_servers_of_qwen3_expect_it() -> None:
    template = TEMPLATES["qwen3"]
    assert template.request_fields(None) == {}
    assert template.request_fields(False) == {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize("reasoning", ["", "r", " r", " ", " \nr", "\r\nr", "\rr", "\tr", "\u2028r", "\u0301r"])
def test_a_prompt_that_contains_think_is_an_exact_prefix_whatever_the_reasoning_starts_with(
    reasoning: str, tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer
) -> None:
    template = TEMPLATES["qwen3-thinking-2507"]
    turns = exchange("q", reasoning, "a")
    rendered = render_turns(turns, tokenizer, template)
    prompt = prompt_ids(turns[:1], tokenizer, template)
    assert rendered.ids[: len(prompt)].tolist() == prompt.tolist() and rendered.num_prompt_tokens == len(prompt)
    assert tokenizer.decode(rendered.ids) == f"{template_text(turns[:1])}{reply_text(reasoning)}"


def reply_text(reasoning: str) -> str:
    return f"<|im_start|>assistant\n<think>\n{normalize('NFC', reasoning)}\n</think>\n\na<|im_end|>\n"
