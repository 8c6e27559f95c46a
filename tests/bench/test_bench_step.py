"""`bench step`: all loops start from the same loss, and the figures name machine and versions."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.run_processes import start


def test_a_loop_that_runs_out_of_memory_is_a_row_and_another_error_is_not() -> None:
    from acc_megatron.bench.step import MeasuredLoop

    def loop(error: Exception) -> Iterator[float]:
        yield 2.0
        raise error

    full = MeasuredLoop(loop(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nmore")))
    for _ in range(3):
        full.step(is_warmup=False)
    assert full.status == "does not fit: DefaultCPUAllocator: can't allocate memory: you tried"
    assert full.first_loss == 2.0 and full.median_seconds is None
    broken = MeasuredLoop(loop(RuntimeError("shapes differ")))
    broken.step(is_warmup=True)
    with pytest.raises(RuntimeError, match="shapes differ"):
        broken.step(is_warmup=False)


@pytest.mark.slow
@pytest.mark.distributed
def test_all_loops_take_the_same_first_step_and_their_times_are_reported(recipe: Path, tmp_path: Path) -> None:
    options = ["--rounds", "1", "--csv", str(tmp_path / "s.csv"), "--json"]
    run = start(tmp_path / "run", ["bench", "step", str(recipe), "optimizer.kind=adamw", *options])
    assert run.wait() == [0], run.error_output()[-4000:]
    result = json.loads(run.output().strip().splitlines()[-1])
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
