"""`bench step`: the loops compared start from one loss, and the figures say where they come from."""

import csv
from pathlib import Path

import pytest
from commands import acc, good


@pytest.mark.distributed
def test_the_loops_take_the_same_step_and_their_times_are_compared(recipe: Path, tmp_path: Path) -> None:
    result = good(
        acc("bench", "step", recipe, "optimizer.kind=adamw", "--rounds", "2", "--csv", tmp_path / "s.csv", "--json")
    )
    losses = result["first_loss"]
    assert losses["bare_megatron"] == pytest.approx(losses["ours"], abs=1e-6)
    assert losses["bare_megatron_own_head"] == pytest.approx(losses["ours"], abs=1e-5)
    assert losses["transformers"] == pytest.approx(losses["ours"], abs=0.3), "random weights, the same tokens"
    for name in ("bare_megatron", "bare_megatron_own_head", "transformers"):
        assert result[f"time_ratio_vs_{name}"] > 0
    assert "megatron-core=0.19.2" in result["versions"] and result["machine"]
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loop"] for row in rows] == ["ours", "bare_megatron", "bare_megatron_own_head", "transformers"]
    assert [float(row["seconds"]) for row in rows] == list(result["seconds"].values())
