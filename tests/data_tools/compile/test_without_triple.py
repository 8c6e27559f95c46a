"""The arm agent-sft keeps SWE runs whose instance is unknown, and counts them; the arm acc names what it needs."""

import json
from pathlib import Path
from typing import Any

from acc_megatron.data_tools.compile.compile import compile_inputs
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer


def compiled(folder: Path, arm: str, tokenizer: Tokenizer) -> dict[str, Any]:
    function = {"name": "bash", "arguments": '{"command": "cat a.py"}'}
    messages = [
        {"role": "user", "content": "It fails."},
        {"role": "assistant", "content": "I look.", "tool_calls": [{"id": "c", "function": function}]},
        {"role": "tool", "tool_call_id": "c", "content": "x = 1"},
        {"role": "assistant", "content": "It is repaired."},
    ]
    verdicts: list[dict[str, Any]] = [{}, {"resolved": True}, {"resolved": False}]
    tools = [{"type": "function", "function": {"name": "bash", "parameters": {}}}]
    rows = [{"instance_id": f"o__t-{i}", "messages": messages, "tools": tools} | verdicts[i] for i in range(3)]
    (folder / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return compile_inputs(
        [folder / "runs.jsonl"], folder / arm, agent="auto", resources=[], settings=CompileSettings(arm=arm),
        tokenizer=tokenizer,
    )  # fmt: skip


def test_agent_sft_needs_no_patch_and_no_instance_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    acc, sft = compiled(tmp_path, "acc", tokenizer), compiled(tmp_path, "agent-sft", tokenizer)
    assert acc["dropped"] == {"no_instance_row": 2, "unresolved": 1} and acc["without_triple"] == 0
    assert sft["dropped"] == {"unresolved": 1}
    assert (sft["documents_out"], sft["without_triple"], sft["without_tools"], sft["unjudged"]) == (2, 2, 0, 1)
    details = [json.loads(line)["detail"] for line in (tmp_path / "acc" / "quarantine.jsonl").open()]
    assert all("--resources" in detail for detail in details[:2])
    rows = [json.loads(line) for line in (tmp_path / "agent-sft" / "triples.jsonl").open()]
    assert [turn["role"] for turn in rows[0]["turns"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert rows[0]["settings"]["notes"]["no_triple"].startswith("no_instance_row: ")
