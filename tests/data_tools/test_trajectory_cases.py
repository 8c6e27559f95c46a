"""The shared minimal inputs of faults: what each row must become. Each kind has its own tests elsewhere too."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.commands import SHARED_DATA

from acc_megatron.data_tools.compile.compile import compile_inputs
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer

CASES = SHARED_DATA.parent / "cases" / "trajectories"
KEPT = {
    "01": 2, "02": 1, "03": 1, "05": 1, "07": 50, "10": 7, "11": 1, "13": 2, "14": 1, "16": 2, "17": 1, "18": 1,
    "20": 50, "21": 5, "22": 1, "24": 1, "26": 1,
}  # fmt: skip
DROPPED: dict[str, dict[str, int]] = {
    "04": {"gold_mismatch": 1}, "09": {"wrong_answer": 2}, "12": {"unresolved": 3}, "15": {"unrecognised": 1},
    "19": {"unrecognised": 1}, "26": {"duplicate_id": 1},
}  # fmt: skip
RESOURCES = dict.fromkeys(("03", "12", "17"), "03_resources") | dict.fromkeys(("04", "05", "22"), "04_resources")
pytestmark = [pytest.mark.data, pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases")]


def compiled(case: str, out: Path, tokenizer: Tokenizer) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    path = next(path for path in sorted(CASES.glob(f"{case}_*")) if not path.name.endswith("_resources"))
    resources = [CASES / RESOURCES[case]] if case in RESOURCES else []
    settings = CompileSettings(allow_empty_reasoning=True)
    manifest = compile_inputs(
        [path], out, agent="auto", resources=resources, settings=settings, tokenizer=tokenizer, max_bad_share=1.0
    )
    return manifest, [json.loads(line) for line in (out / "triples.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("case", sorted({*KEPT, *DROPPED}))
def test_every_row_is_kept_or_dropped_for_its_true_reason(case: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    manifest, _ = compiled(case, tmp_path / "out", tokenizer)
    assert (manifest["documents_out"], manifest["dropped"]) == (KEPT.get(case, 0), DROPPED.get(case, {}))


def test_the_kept_rows_have_the_right_parts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = {
        case: compiled(case, tmp_path / case, tokenizer)[1] for case in ("01", "02", "03", "05", "11", "14", "22", "24")
    }
    assert [len(row["context"]) for row in rows["01"]] == [2, 1]
    assert rows["02"][0]["question"].startswith("Who built")
    assert rows["03"][0]["reasoning"] == "I read b first."
    assert {piece["title"]: piece["kind"] for piece in rows["03"][0]["context"]}["pkg/b.py"] == "distractor"
    assert {piece["title"] for piece in rows["05"][0]["context"]} == {"Table school", "Table teacher"}
    assert [piece["title"] for piece in rows["11"][0]["context"] if piece["kind"] == "evidence"] == ["Cape Verity"]
    assert len(rows["14"][0]["context"]) == 3
    assert "strong refers to CAST(hp AS INTEGER) > 150" in rows["22"][0]["question"]
    assert rows["24"][0]["settings"]["notes"]["images_removed"] == 1
    assert len(rows["24"][0]["context"][0]["text"]) < 250
