"""Compares the measured peak memory of scaled-down runs with the memory that `plan` predicts.

PYTHONPATH=tests python -m support.memory_matrix
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acc_megatron.mesh.layout import build_layout
from acc_megatron.plan.memory import RowContents, StageMemory, stage_memory
from acc_megatron.plan.parameters import stage_parameters
from acc_megatron.plan.rank_sizes import rank_sizes
from support.memory_cases import SUPERVISED_SHARE, Case, Measured, case_config, row_documents, run_cases

WIDE = ("model.hidden_size=384", "model.num_attention_heads=12", "model.num_key_value_heads=4")
MANY = ("model.num_experts=16", "model.num_experts_per_tok=4", "model.moe_intermediate_size=64")
BF16 = ("train.precision=bfloat16", "parallel.distributed_optimizer=true")
LORA = ("adapter.rank=8", "train.init_from=unset")
DENSE = (
    "model.family=qwen3", "model.intermediate_size=768", "model.num_experts=0", "model.num_experts_per_tok=0",
    "model.moe_intermediate_size=0",
)  # fmt: skip
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
    Case("bfloat16 moments, gradients, remainders", 1, (*BF16, "optimizer.moments=bfloat16",
         "optimizer.gradients=bfloat16", "optimizer.master_weights=remainders")),
    Case("fp8 moments, float16 weights", 1,
         (*BF16, "optimizer.moments=fp8", "optimizer.master_weights=float16")),
    Case("EP2, bfloat16 moments, remainders", 2, (*BF16, *MANY, "parallel.expert=2", "optimizer.moments=bfloat16",
         "optimizer.master_weights=remainders")),
    Case("dense, tied", 1, (*DENSE, "model.tie_word_embeddings=true")),
    Case("dense, selective: mlp, layernorm, bfloat16", 1,
         (*DENSE, "train.precision=bfloat16", "memory.recompute=selective",
          "memory.recompute_modules=['mlp', 'layernorm']")),
    Case("dense, TP2", 2, (*DENSE, "parallel.tensor=2")),
    Case("dense, tied, PP2", 2, (*DENSE, "parallel.pipeline=2", "model.tie_word_embeddings=true")),
    Case("LoRA of attention, trained routers", 1, (*LORA, "adapter.trained=['router']")),
    Case("LoRA of experts, bfloat16, full recompute", 1,
         (*LORA, "adapter.targets=['experts']", "train.precision=bfloat16", "memory.recompute=full")),
    Case("frozen experts", 1, ("freeze.parts=['experts']",)),
    Case("supervised rows, long row", 1,
         ("model.num_hidden_layers=2", "data.seq_length_tokens=4096", "loss.last_layer_rows=supervised")),
    Case("PP2, 4 microbatches", 2, ("parallel.pipeline=2",)),
    Case("PP2 of 2 chunks, bfloat16, 8 layers", 2,
         ("parallel.pipeline=2", "parallel.virtual_pipeline=2", "model.num_hidden_layers=8", *BF16)),
]  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Predicted and measured memory on the rank of a pipeline stage that needs most."""

    case: Case
    stage: int
    predicted: StageMemory
    measured: Measured


def predict(case: Case, stage: int, expert_load: float) -> StageMemory:
    """Predict the memory of a stage of a case, for the router balance that was measured."""
    with tempfile.TemporaryDirectory() as folder:
        config = case_config(case, Path(folder))
    layout = build_layout(config.parallel, case.world)
    sizes = rank_sizes(config, layout, on_gpu=False, expert_load=expert_load)
    documents = row_documents(config)
    row = RowContents(documents, sum(max(1, round(length * SUPERVISED_SHARE)) for length in documents))
    parameters = stage_parameters(config.model, layout, stage)
    return stage_memory(config, layout, sizes, parameters, stage=stage, row=row)


def compare(cases: Sequence[Case]) -> list[Comparison]:
    """Run cases of one world size and compare each pipeline stage."""
    results = []
    for case, ranks in zip(cases, run_cases(cases), strict=True):
        pipelined = any("parallel.pipeline=2" in override for override in case.overrides)
        stages = [ranks[: case.world // 2], ranks[case.world // 2 :]] if pipelined else [ranks]
        for stage, group in enumerate(stages):
            fullest = max(group, key=lambda rank: rank.peak_bytes)
            results.append(Comparison(case, stage, predict(case, stage, fullest.expert_load), fullest))
    return results


def main() -> None:
    """Print the table as Markdown; arguments select cases by a part of their names."""
    print("| run | processes, stage | expert load | measured MB: between steps, peak (resident) | predicted | error |")
    print("|---|---|---|---|---|---|")
    chosen = [case for case in CASES if not sys.argv[1:] or any(part in case.name for part in sys.argv[1:])]
    for world in sorted({case.world for case in chosen}):
        for result in compare([case for case in chosen if case.world == world]):
            predicted, measured = result.predicted, result.measured
            between_steps = predicted.weights + predicted.gradients + predicted.optimizer
            print(
                f"| {result.case.name} | {world}, {result.stage} | {measured.expert_load:.2f} "
                f"| {measured.between_steps_bytes / 1e6:.1f}, {measured.peak_bytes / 1e6:.1f} "
                f"({measured.resident_bytes / 1e6:.0f}) "
                f"| {between_steps / 1e6:.1f}, {predicted.total / 1e6:.1f} "
                f"| {predicted.total / measured.peak_bytes - 1:+.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
