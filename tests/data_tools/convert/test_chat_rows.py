"""Chats in every published layout become the same turns, and the loss covers the assistant's turns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.official_templates import official_text
from tokenizers import Tokenizer as HuggingFaceTokenizer

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.convert.chat_rows import read_chat
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.input_rows import input_files
from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.data_tools.convert.verify import verify
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError, Dropped

Writer = Callable[[Path, list[Any]], Path]
TOOL = {"type": "function", "function": {"name": "search", "description": "Find.", "parameters": {"type": "object"}}}
FUNCTION = {"name": "search", "arguments": {"q": "naïve"}}
CALL = '{"name": "search", "arguments": {"q": "naïve"}}'
OPENAI: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be good."},
        {"role": "user", "content": "Where?"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [{"function": FUNCTION}],
        },
        {"role": "tool", "content": "a hit"},
        {"role": "assistant", "content": "In Paris."},
        {"role": "user", "content": [{"type": "text", "text": "And when?"}]},
        {"role": "assistant", "content": "<think>\nI know.\n</think>\n\nIn 1900."},
    ],
    "tools": [TOOL],
}
SHAREGPT: dict[str, Any] = {
    "system": "Be good.",
    "tools": json.dumps([TOOL]),
    "conversations": [
        {"from": "human", "value": "Where?"},
        {"from": "gpt", "value": f"I look.\n<tool_call>\n{CALL}\n</tool_call>"},
        {"from": "tool", "value": "<tool_response>\na hit\n</tool_response>"},
        {"from": "gpt", "value": "In Paris."},
        {"from": "human", "value": "And when?"},
        {"from": "gpt", "value": "<think>\nI know.\n</think>\n\nIn 1900."},
    ],
}  # fmt: skip


def turns_of(row: dict[str, Any]) -> list[Turn]:
    chat = read_chat(row, "f:1")
    assert chat is not None
    return list(chat.turns)


def test_openai_and_sharegpt_rows_with_tools_have_the_same_turns() -> None:
    turns = turns_of(OPENAI)
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "tool", "assistant", "user", "assistant"]
    assert turns[0] == Turn(role="system", text="Be good.", tools=(json.dumps(TOOL),))
    assert turns[2] == Turn(role="assistant", text="I look.", tool_calls=(CALL,), supervised=True)
    assert turns[6].reasoning == "I know." and turns[6].text.strip() == "In 1900."
    assert turns_of(SHAREGPT) == turns
    apart = {"role": "assistant", "reasoning_content": "I know.", "content": "\n\nIn 1900."}
    assert turns_of({"messages": [*OPENAI["messages"][:-1], apart], "tools": [TOOL]}) == turns


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_with_tools_has_the_ids_that_transformers_gives(
    name: str, tokenizer: Tokenizer, huggingface: HuggingFaceTokenizer, tmp_path: Path, write_rows: Writer
) -> None:
    messages = [*OPENAI["messages"][:-1], {"role": "assistant", "content": "In 1900."}]
    messages[5] = {"role": "user", "content": "And when?"}
    source = write_rows(tmp_path / "chats.jsonl", [{"messages": messages, "tools": [TOOL]}])
    manifest = convert([source], tmp_path / "out", ConvertSettings(template=name))
    assert manifest["documents_out"] == 1 and verify(tmp_path / "out") == []
    ids, mask = open_dataset(tmp_path / "out").document(0)
    text = official_text(name, messages, [TOOL])
    if name == "qwen3-thinking-2507":  # the loss on a reply needs the thinking block that its prompt opens
        empty = "<think>\n\n</think>\n\n"
        for start in ("I look", "In P"):
            text = text.replace(f"assistant\n{start}", f"assistant\n{empty}{start}")
        assert tokenizer.decode(ids) == text
        return
    assert ids.tolist() == huggingface.encode(text).ids
    changes = np.flatnonzero(np.diff(mask)) + 1
    parts = [tokenizer.decode(ids[part]) for part in np.split(np.arange(len(ids)), changes) if mask[part[0]]]
    assert len(parts) == 3 and all(part.endswith("<|im_end|>") for part in parts)
    assert [part.split("\n")[0].removesuffix("<|im_end|>") for part in parts[:2]] == ["I look.", "In Paris."]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Where?", "completion": "In Paris."},
        {
            "prompt": [{"role": "user", "content": "Where?"}],
            "completion": [{"role": "assistant", "content": "In Paris."}],
        },
        {"instruction": "Where?", "input": "", "output": "In Paris."},
        {"instruction": "Where?", "context": "", "response": "In Paris.", "category": "x"},
        {"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "In Paris."}]},
        {"query": "Where?", "response": "In Paris.", "history": []},
        {"prompt": "Where?", "response": "In Paris."},
        {"conversation": [{"human": "Where?", "assistant": "In Paris."}]},
        {"conversation": [{"input": "Where?", "output": "In Paris."}]},
        {"question": "Where?", "response": "In Paris."},
        {"messages": '[{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "In Paris."}]'},
        {"conversations": [{"from": "human", "value": "Where?"}, {"from": "chatgpt", "value": "In Paris."}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "value": "Where?"}], "loss_weight": 0.0},
                {"role": "assistant", "content": [{"type": "text", "value": "In Paris."}], "loss_weight": 1.0},
            ],
            "label": True,
        },
    ],
)  # fmt: skip
def test_every_layout_of_one_exchange_has_the_same_turns(row: dict[str, Any]) -> None:
    expected = [Turn(role="user", text="Where?"), Turn(role="assistant", text="In Paris.", supervised=True)]
    assert turns_of(row) == expected
    with_system = [Turn(role="system", text="s"), *expected]
    for key in ("system", "system_prompt"):
        assert turns_of(row | {key: "s"}) == with_system


@pytest.mark.parametrize(
    "parts",
    [
        [
            {"type": "thinking", "thinking": "I search.", "signature": "x"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "1", "name": "search", "input": FUNCTION["arguments"]},
        ],
        [
            {"type": "reasoning", "value": "I search."},
            {"type": "text", "value": "I look."},
            {"type": "tool_call", "value": json.dumps(FUNCTION)},
        ],
    ],
)
def test_reasoning_and_calls_can_be_parts_of_a_message(parts: list[dict[str, Any]]) -> None:
    reply = {"role": "assistant", "content": "done"}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "a hit"}]}
    request = {"role": "user", "content": [result, {"type": "text", "text": "And?"}]}
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": parts}, request, reply]
    turns = turns_of({"messages": messages})
    made = Turn(role="assistant", text="I look.", reasoning="I search.", tool_calls=(CALL,), supervised=True)
    assert turns[1:4] == [made, Turn(role="tool", text="a hit"), Turn(role="user", text="And?")]
    assert [turn.role for turn in turns_of({"messages": [*messages[:2], request | {"content": [result]}, reply]})] == [
        "user", "assistant", "tool", "assistant",
    ]  # fmt: skip


def test_replies_that_must_not_be_learned_and_rows_about_images_are_refused() -> None:
    pair = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    with pytest.raises(Dropped, match="undesirable_reply"):
        read_chat({"conversations": pair, "label": False}, "f:1")
    with pytest.raises(DataError, match=r"f:1: the row is about 'images'"):
        read_chat({"conversations": pair, "images": ["a.jpg"]}, "f:1")
    with pytest.raises(DataError, match=r"f:1: a row of preferences"):
        read_chat({"conversations": pair[:1], "chosen": pair[1], "rejected": pair[1]}, "f:1")
    assert read_chat({"conversations": pair, "images": []}, "f:1") is not None
    for run in ({"steps": []}, {"response": "<search>x</search><information>y</information>"}):
        assert read_chat({"prompt": "q", "response": "a"} | run, "f:1") is None
    assert read_chat({"prompt": "[1, 2]", "response": "3"}, "f:1") is not None


def test_outputs_of_tools_in_a_user_message_are_outputs_and_thinking_is_reasoning() -> None:
    outputs = "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"
    reply = {"role": "assistant", "content": "a", "thinking": "I know."}
    messages = [*OPENAI["messages"][1:3], {"role": "user", "content": outputs}, reply]
    turns = turns_of({"messages": messages})
    assert [(turn.role, turn.text) for turn in turns[2:]] == [("tool", "one"), ("tool", "two"), ("assistant", "a")]
    assert turns[-1].reasoning == "I know."
    asked = turns_of({"messages": [{"role": "user", "content": f"Explain {outputs}"}, reply]})
    assert asked[0].role == "user"


def test_a_json_list_has_the_documents_of_its_json_lines(tmp_path: Path, write_rows: Writer) -> None:
    rows = [OPENAI, SHAREGPT, {"instruction": "Where?", "output": "In Paris."}]
    lines, document = write_rows(tmp_path / "a.jsonl", rows), tmp_path / "b.json"
    document.write_text(json.dumps(rows, indent=1))
    made = [convert([path], tmp_path / path.stem, ConvertSettings()) for path in (lines, document)]
    assert [manifest["documents_out"] for manifest in made] == [3, 3]
    datasets = [open_dataset(tmp_path / name) for name in ("a", "b")]
    for number in range(3):
        (ids, mask), (other_ids, other_mask) = (dataset.document(number) for dataset in datasets)
        assert ids.tolist() == other_ids.tolist() and mask.tolist() == other_mask.tolist()
    assert input_files([tmp_path / "a.jsonl", document]) == [lines, document]


def test_alpaca_input_and_history_come_before_the_answer() -> None:
    row = {"instruction": "Add.", "input": "1 2", "output": "3", "history": [["Hi", "Hello"]]}
    assert [turn.text for turn in turns_of(row)] == ["Hi", "Hello", "Add.\n\n1 2", "3"]


def test_replies_in_a_prompt_and_replies_with_weight_0_have_no_loss() -> None:
    reply = {"role": "assistant", "content": "a"}
    prompt = [{"role": "user", "content": "q"}, reply, {"role": "user", "content": "q"}]
    assert [turn.supervised for turn in turns_of({"prompt": prompt, "completion": [reply]})] == [False] * 3 + [True]
    for key in ("weight", "train", "loss", "loss_weight", "train_on_turn"):
        turns = turns_of({"messages": [*prompt[:1], reply | {key: 0}, *prompt[2:], reply | {key: 1}]})
        assert [turn.supervised for turn in turns] == [False] * 3 + [True]


def test_arguments_that_are_json_text_stay_as_they_are() -> None:
    call = {"type": "function", "id": "1", "function": {"name": "f", "arguments": '{"a":1}'}}
    turns = turns_of({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [call]}]})
    assert turns[1].tool_calls == ('{"name": "f", "arguments": {"a":1}}',)


def test_rows_that_are_tokenized_keep_their_ids_and_labels(tmp_path: Path, write_rows: Writer) -> None:
    rows = [
        {"id": "a", "input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8], "source": "x"},
        {"id": "b", "input_ids": [5, 6], "labels": [5, 6], "attention_mask": [1, 1]},
        {"id": "c", "input_ids": [5, 6], "labels": [-100, -100]},
        {"id": "d", "input_ids": [5, 999_999], "labels": [-100, 999_999]},
        {"id": "e", "input_ids": [5, -1], "labels": [-100, -1]},
    ]
    manifest = convert([write_rows(tmp_path / "tokens.jsonl", rows)], tmp_path / "out", ConvertSettings())
    assert manifest["documents_out"] == 2 and verify(tmp_path / "out") == []
    assert manifest["dropped"] == {"id_outside_vocabulary": 2, "nothing_supervised": 1}
    dataset = open_dataset(tmp_path / "out")
    assert [part.tolist() for part in dataset.document(0)] == [[5, 6, 7, 8], [0, 0, 1, 1]]
    assert [part.tolist() for part in dataset.document(1)] == [[5, 6], [0, 1]]
    assert json.loads(dataset.samples["extra"][0].as_py()) == {"id": "a", "source": "x"}
