"""Measured peak memory of scaled-down runs beside what `plan` says of them: `python tests/plan/memory_matrix.py`."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from memory_cases import SUPERVISED_SHARE, Case, Measured, case_config, row_documents, run_cases

WIDE = ("model.hidden_size=384", "model.num_attention_heads=12", "model.num_key_value_heads=4")
MANY = ("model.num_experts=16", "model.num_experts_per_tok=4", "model.moe_intermediate_size=64")
BF16 = ("train.precision=bfloat16", "parallel.distributed_optimizer=true")
CASES = [
    Case("base: 4 layers, float32", 1),
    Case("wide, 6 layers, bfloat16", 1, (*WIDE, "model.num_hidden_layers=6", "train.precision=bfloat16")),
    Case("16 experts of 4, long row, full recompute", 1,
         (*MANY, "data.seq_length_tokens=4096", "memory.recompute=full")),
    Case("head recomputes, vocabulary 65,536", 1, ("model.vocab_size=65536", "loss.plan=recompute")),
    Case("16 experts, selective: layernorm, core_attn", 1,
         (*MANY, "memory.recompute=selective", "memory.recompute_modules=['layernorm', 'core_attn']")),
    Case("selective: moe", 1, ("memory.recompute=selective", "memory.recompute_modules=['moe']")),
    Case("EP2, distributed optimizer, bfloat16", 2, (*BF16, *MANY, "parallel.expert=2")),
    Case("TP2, balancing loss, wide", 2, (*WIDE, "parallel.tensor=2", "moe.load_balancing=aux_loss")),
    Case("CP2, full recompute, long row", 2,
         ("parallel.context=2", "data.seq_length_tokens=4096", "memory.recompute=full")),
    Case("CP2 EP2, distributed optimizer", 2, (*MANY, "parallel.context=2", "parallel.expert=2",
         "parallel.distributed_optimizer=true")),
    Case("PP2, 4 microbatches", 2, ("parallel.pipeline=2",)),
    Case("PP2 of 2 chunks, bfloat16, 8 layers", 2,
         ("parallel.pipeline=2", "parallel.virtual_pipeline=2", "model.num_hidden_layers=8", *BF16)),
]  # fmt: skip


def predicted(case: Case, stage: int, expert_load: float) -> Any:
    """`plan`'s memory of a stage of a case, as `StageMemory`; the router's balance is what the run had."""
    from acc_megatron.layout import build_layout
    from acc_megatron.plan.memory import Row, stage_memory
    from acc_megatron.plan.parameters import stage_parameters
    from acc_megatron.plan.shapes import rank_shapes

    with tempfile.TemporaryDirectory() as folder:
        config = case_config(case, Path(folder))
    layout = build_layout(config.parallel, case.world)
    shapes = rank_shapes(config, layout, on_gpu=False, expert_load=expert_load)
    documents = row_documents(config)
    row = Row(documents, sum(max(1, round(length * SUPERVISED_SHARE)) for length in documents))
    parameters = stage_parameters(config.model, layout, stage)
    return stage_memory(config, layout, shapes, parameters, stage=stage, row=row)


def compare(cases: Sequence[Case]) -> list[tuple[Case, int, Any, Measured]]:
    """`(case, stage, predicted, measured)` of the rank of each stage that needed most; cases of one world."""
    rows = []
    for case, ranks in zip(cases, run_cases(cases), strict=True):
        pipelined = any("parallel.pipeline=2" in override for override in case.overrides)
        stages = [ranks[: case.world // 2], ranks[case.world // 2 :]] if pipelined else [ranks]
        for stage, group in enumerate(stages):
            fullest = max(group, key=lambda rank: rank.peak_bytes)
            rows.append((case, stage, predicted(case, stage, fullest.expert_load), fullest))
    return rows


def main() -> None:
    """Print the table as Markdown; arguments choose cases by parts of their names."""
    print("| run | processes, stage | experts' load | measured MB: standing, peak (resident) | predicted | off by |")
    print("|---|---|---|---|---|---|")
    chosen = [case for case in CASES if not sys.argv[1:] or any(part in case.name for part in sys.argv[1:])]
    for world in sorted({case.world for case in chosen}):
        for case, stage, said, found in compare([case for case in chosen if case.world == world]):
            standing = said.weights + said.gradients + said.optimizer
            print(
                f"| {case.name} | {world}, {stage} | {found.expert_load:.2f} "
                f"| {found.standing_bytes / 1e6:.1f}, {found.peak_bytes / 1e6:.1f} ({found.resident_bytes / 1e6:.0f}) "
                f"| {standing / 1e6:.1f}, {said.total / 1e6:.1f} | {said.total / found.peak_bytes - 1:+.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
