"""Rows of conversations are read and checked, and real runs become conversations that convert takes."""

import json
from pathlib import Path

import pytest
from support.commands import SHARED_DATA

from acc_megatron.data_tools.compile.compile import compile_inputs
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.conversation import Conversation
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError

DATA = SHARED_DATA


@pytest.mark.parametrize(
    "turn", [5, {"role": "judge", "text": ""}, {"role": "user"}, {"role": "tool", "text": "", "supervised": True}]
)
def test_rows_that_are_no_conversation_are_refused_by_place(turn: object) -> None:
    with pytest.raises(DataError, match=r"f:3: turns\[0\]"):
        Conversation.from_dict({"id": "x", "turns": [turn]}, "f:3")
    with pytest.raises(DataError, match="f:3: a conversation needs"):
        Conversation.from_dict({"turns": []}, "f:3")


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data")
def test_real_runs_become_conversations_also_without_an_instance_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
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
    ids = {arm: [row["id"] for row in rows[arm]] for arm in rows}
    no_triple = set(ids["agent-sft"]) - set(ids["acc"])  # runs of software engineering without a row of their instance
    assert len(no_triple) == manifests["acc"]["dropped"]["no_instance_row"] == 4
    assert [name for name in ids["agent-sft"] if name not in no_triple] == ids["acc"]
    for row in rows["agent-sft"]:
        conversation = Conversation.from_dict(row, row["id"])
        assert json.loads(json.dumps(conversation.to_dict())) == row
        assert {turn.role for turn in conversation.turns if turn.supervised} == {"assistant"}
        assert sum(turn.role == "tool" for turn in conversation.turns) >= 1
        assert conversation.turns[-1].role == "assistant"
        assert not any("<tool_call>" in turn.text or "<think>" in turn.text for turn in conversation.turns[2:])
    made = convert([tmp_path / "agent-sft"], tmp_path / "data", ConvertSettings())
    assert made["documents_out"] == len(rows["agent-sft"]) and made["tokens"] == manifests["agent-sft"]["tokens"]
    tokens, mask = open_dataset(tmp_path / "data").document(0)
    assert 0 < mask.sum() < len(tokens)
