"""messages.jsonl gives other trainers the same tokens: `datasets` loads it, the official template renders it."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.official_templates import official_template

from acc_megatron.data_tools.compile.compile import compile_inputs
from acc_megatron.data_tools.compile.messages import messages_row
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.conversation import Conversation, Turn, agent_turn, call_text
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.render import render_turns, triple_turns
from acc_megatron.data_tools.schema import Triple
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer

TOOLS = [{"type": "function", "function": {"name": "visit", "description": "Opens a page.", "parameters": {}}}]


def run_row(number: int) -> dict[str, Any]:
    """A search run with a page, a thought and a right answer."""
    call = {"id": "1", "function": {"name": "visit", "arguments": json.dumps({"url": f"https://a.example/{number}"})}}
    page = f"Mara Lind wrote the book number {number} in 1931. " * 20
    return {
        "question": f"Who wrote book {number}?",
        "answer": "Mara Lind",
        "messages": [
            {"role": "system", "content": "You search."},
            {"role": "user", "content": f"Who wrote book {number}?"},
            {"role": "assistant", "content": "<think>I open the page.</think>", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": page},
            {"role": "assistant", "content": "<think>It names her.</think><answer>Mara Lind</answer>"},
        ],
        "tools": TOOLS if number else None,
    }


def compiled(tmp_path: Path, arm: str, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> Path:
    source = tmp_path / "runs.jsonl"
    source.write_text("".join(json.dumps(run_row(number)) + "\n" for number in range(3)))
    manifest = compile_inputs(
        [source],
        tmp_path / arm,
        agent="auto",
        resources=[],
        settings=CompileSettings(arm=arm),
        tokenizer=tokenizer,
        with_messages=True,
    )
    assert manifest["documents_out"] == 3 and "messages.jsonl" in manifest["files"]
    said = "1 of 3 documents define no tools" in capsys.readouterr().err
    assert (said, manifest["without_tools"]) == ((True, 1) if arm == "agent-sft" else (False, 0))
    return tmp_path / arm


@pytest.mark.parametrize("arm", ["acc", "agent-sft"])
def test_other_trainers_get_the_ids_of_convert(
    arm: str, tmp_path: Path, tokenizer: Tokenizer, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets")
    transformers = pytest.importorskip("transformers")
    folder = compiled(tmp_path, arm, tokenizer, capsys)
    rows = datasets.load_dataset(
        "json", data_files=str(folder / "messages.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    loaded = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_folder / "tokenizer.json"), chat_template=official_template("qwen3")
    )
    convert([folder], tmp_path / "data", ConvertSettings())
    dataset = open_dataset(tmp_path / "data")
    assert len(rows) == len(dataset) == 3
    for number, row in enumerate(rows):
        tools = json.loads(row["tools"]) if row["tools"] else None
        ids = loaded.apply_chat_template(row["messages"], tools=tools, return_dict=False)
        assert ids == dataset.document(number)[0].tolist()


def test_the_agent_arm_renders_the_tools_of_its_rows(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = compiled(tmp_path, "agent-sft", tokenizer, capsys)
    rows = [json.loads(line) for line in (folder / "triples.jsonl").read_text().splitlines()]
    turns = [Conversation.from_dict(row, "f:1").turns[0] for row in rows]
    assert [turn.tools for turn in turns] == [(), (json.dumps(TOOLS[0]),), (json.dumps(TOOLS[0]),)]
    assert all(turn.text == "You search." for turn in turns)


@pytest.mark.parametrize("reasoning", ["", "r", "\n\nr \n"])
@pytest.mark.parametrize("answer", ["a", "\n\na\n"])
def test_a_row_has_the_ids_of_its_document(
    reasoning: str, answer: str, tokenizer: Tokenizer, tokenizer_folder: Path
) -> None:
    from support.official_templates import official_text
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    huggingface = HuggingFaceTokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    triple = Triple(id="t", agent="search", question="q", context=(), reasoning=reasoning, answer=answer)
    text = official_text("qwen3", messages_row(triple)["messages"])
    assert huggingface.encode(text).ids == render_turns(triple_turns(triple), tokenizer).ids.tolist()
    call = call_text("f", {"a": [1]})
    turns = (
        Turn(role="system", text="", tools=('{"name": "f"}',)),
        Turn(role="user", text="q"),
        agent_turn("", reasoning=reasoning, calls=(call, call)),
        Turn(role="tool", text="o"),
        agent_turn("look", calls=("not JSON",)),
        Turn(role="tool", text="o"),
        agent_turn(answer, reasoning=reasoning),
    )
    row = messages_row(Conversation(id="c", agent="swe", turns=turns))
    text = official_text("qwen3", row["messages"], json.loads(row["tools"]))
    assert huggingface.encode(text).ids == render_turns(turns, tokenizer).ids.tolist()
