"""Published training speeds beside the time model: `python tests/plan/published_speeds.py`.

No row has constants of its own: shares of peak are those of `plan/efficiency.py` for all.
"""

from dataclasses import dataclass
from pathlib import Path

from acc_megatron.config import load_config
from acc_megatron.flops import training_flops
from acc_megatron.layout import build_layout
from acc_megatron.machines import find_machine
from acc_megatron.plan.memory import Row
from acc_megatron.plan.planner import Plan, make_plan
from acc_megatron.plan.workload import Workload

RECIPE = Path(__file__).parents[2] / "examples" / "qwen3_30b_a3b_128k_h100.toml"
BRIDGE = "Megatron-Bridge performance summary"
BASE = (
    "data.seq_length_tokens=4096", "parallel.tensor=1", "parallel.context=1", "memory.recompute=none",
    "parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true",
)  # fmt: skip
GUESSED = "alltoall is our guess"
FP8 = "train.precision=fp8_current"
QWEN3_235B = (
    "model.hidden_size=4096", "model.num_hidden_layers=94", "model.num_attention_heads=64",
    "model.moe_intermediate_size=1536",
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A figure as published, and the settings that its source names."""

    source: str
    setup: str
    gpus: int
    tflops_per_gpu: float
    overrides: tuple[str, ...]
    rows_together: int = 1  # of 4,096 tokens in a microbatch
    note: str = ""


PUBLISHED = [
    Published("Megatron-Bridge docs/training/moe-optimization", "16 H100, BF16, EP16, HybridEP, CUDA graphs", 16, 299,
              ("parallel.expert=16", "moe.dispatcher=hybridep", "train.global_batch_rows=1024")),
    Published("same, smoke run 2026-05-17", "16 H100, BF16, EP16, alltoall", 16, 132.9,
              ("parallel.expert=16", "train.global_batch_rows=1024")),
    Published("NeMo Automodel docs/performance-summary", "8 H100, BF16, EP8, DeepEP, 4 rows together", 8, 277.0,
              ("parallel.expert=8", "moe.dispatcher=deepep", "train.global_batch_rows=512"), 4),
    Published("Megatron-MoE-ModelZoo issue 21", "32 H100, run_30b.sh; EP8 and alltoall are our guess", 32, 120,
              ("parallel.expert=8", "train.global_batch_rows=1024")),
    Published(f"{BRIDGE} 26.04", "16 H100, FP8, EP16", 16, 205.0,
              (FP8, "parallel.expert=16", "train.global_batch_rows=1024"), note=GUESSED),
    Published(f"{BRIDGE} 26.02.01", "16 H100, FP8, PP2 of 12 chunks, EP8", 16, 208.0,
              (FP8, "parallel.expert=8", "parallel.pipeline=2", "parallel.virtual_pipeline=12",
               "train.global_batch_rows=1024"), note=GUESSED),
    Published(f"{BRIDGE} 26.04, Qwen3-235B-A22B", "256 H100, FP8, TP2 PP8 EP32", 256, 250.0,
              (FP8, *QWEN3_235B, "parallel.tensor=2", "parallel.pipeline=8", "parallel.expert=32",
               "model.num_hidden_layers=96", "train.global_batch_rows=2048"),
              note="96 layers for 94; alltoall is our guess"),
]  # fmt: skip


def predict(row: Published) -> Plan:
    """The plan of a published run: packed rows of whole 4,096-token documents, every token supervised, even routing."""
    tokens, together = 4096, row.rows_together
    extra = (f"data.seq_length_tokens={tokens * together}",) if together > 1 else ()
    config = load_config(RECIPE, [*BASE, *row.overrides, *extra])
    if together > 1:
        batch = config.train.global_batch_rows // together
        config = load_config(RECIPE, [*BASE, *row.overrides, *extra, f"train.global_batch_rows={batch}"])
    flops = training_flops(config.model, tokens=tokens, squared_tokens=tokens**2, head_tokens=tokens) * together
    workload = Workload(
        source="published",
        num_rows=config.train.global_batch_rows,
        num_steps=1,
        row_tokens=tokens * together,
        document_tokens=tokens * together,
        squared_tokens=together * tokens**2,
        supervised_tokens=tokens * together,
        costs=(flops,) * config.train.global_batch_rows,
        fullest=Row((tokens,) * together, tokens * together),
    )
    layout = build_layout(config.parallel, row.gpus)
    return make_plan(config, layout, find_machine("h100"), workload, expert_load=1.0)


def main() -> None:
    """Print the table as Markdown."""
    print("| source | setup | published TFLOP/s/GPU | predicted | off by |\n|---|---|---|---|---|")
    for row in PUBLISHED:
        said = predict(row).flops_per_second_per_gpu / 1e12
        note = f"; {row.note}" if row.note else ""
        print(
            f"| {row.source} | {row.setup}{note} | {row.tflops_per_gpu:.0f} | {said:.0f} "
            f"| {said / row.tflops_per_gpu - 1:+.0%} |"
        )


if __name__ == "__main__":
    main()
