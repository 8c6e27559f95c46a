"""One process of `bench plan`: calibrates, and trains a few steps of each case, in turn. Started by torchrun."""

import json
import statistics
import sys
from pathlib import Path

from acc_megatron.mesh.process_groups import model_parallel_groups, process_groups  # first: runs without CUDA

# isort: split
from megatron.core import parallel_state

from acc_megatron.bench.plan_cases import CASES, LONG, Case
from acc_megatron.bench.plan_config import case_config
from acc_megatron.calibrate.clock import now
from acc_megatron.calibrate.rounds import mean_over_ranks
from acc_megatron.calibrate.run import about, measure, speeds_of
from acc_megatron.config import ParallelConfig
from acc_megatron.mesh.layout import Layout, build_layout
from acc_megatron.mesh.torchrun_environment import is_rank_zero, say
from acc_megatron.plan.machine_file import write_machine
from acc_megatron.training.step import train_step
from acc_megatron.training.trainer import build_trainer

NUM_WARMUP_STEPS = 2


def main() -> None:
    """Run all cases of this world size; the speeds of a case are those measured before and after it."""
    folder, num_steps, budget_seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with process_groups(ParallelConfig()) as layout:
        cases = [(number, case) for number, case in enumerate(CASES) if case.world == layout.world]
        base = case_config(Case("calibration", layout.world, LONG), folder)
        before = measure(base, budget_seconds=budget_seconds, say=_quiet)
        for number, case in cases:
            seconds = _step_seconds(case, folder, num_steps)
            model_parallel_groups(ParallelConfig(), layout)
            after = measure(base, budget_seconds=budget_seconds, say=_quiet)
            found = {name: (before[name] + after[name]) / 2 for name in before}
            before = after
            say(f"{case.name}: {seconds:.3f} s")
            if is_rank_zero():
                write_machine(folder / f"machine_{number}.toml", speeds_of(base, found), about())
                (folder / f"measured_{number}.json").write_text(json.dumps(seconds))


def _quiet(line: str) -> None: ...


def _step_seconds(case: Case, folder: Path, num_steps: int) -> float:
    """The median seconds of a step, averaged over the ranks; leaves no model-parallel groups."""
    parallel_state.destroy_model_parallel()
    config = case_config(case, folder)
    layout: Layout = build_layout(config.parallel, case.world)
    model_parallel_groups(config.parallel, layout)
    trainer = build_trainer(config, layout)
    taken = []
    for _ in range(NUM_WARMUP_STEPS + num_steps):
        start = now()
        train_step(trainer)
        taken.append(now() - start)
    parallel_state.destroy_model_parallel()
    return mean_over_ranks([statistics.median(taken[NUM_WARMUP_STEPS:])])[0]


if __name__ == "__main__":
    main()
