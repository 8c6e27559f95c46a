"""Published training speeds next to the predicted ones: `PYTHONPATH=tests python -m support.published_speeds`.

All predictions use the same shares of peak speed, those of `plan/assumed_efficiency.py`.

TRL: https://github.com/huggingface/trl/issues/5713 (2026-05-06; p5.48xlarge nodes, 989.5 TFLOP/s). Its "adj. MFU"
counts causal attention and 6 x active parameters with the head, as `training_flops` does with the head on all tokens:
the ratio of both MFU columns gives that. TRL recomputes all layers by default. The last TRL row is
https://github.com/huggingface/trl/pull/6845. prime-rl: benchmarks/results/BENCHMARKS.md at 30bf494f, rows
"RL LoRA(r=16) 65536 8xH100 HBM3" (23.39k tokens/s) and "SFT Full 16384 8xH200" (35.03k); every GPU has a row of
full length, and weights are gathered (FSDP2).
"""

from dataclasses import dataclass, replace
from pathlib import Path

from acc_megatron.config import load_config
from acc_megatron.mesh.layout import build_layout
from acc_megatron.model.flops import training_flops
from acc_megatron.plan.memory import RowContents
from acc_megatron.plan.planner import Plan, make_plan
from acc_megatron.plan.speeds import find_speeds
from acc_megatron.plan.workload import Workload, length_classes

RECIPE = Path(__file__).parent / "recipe_30b.toml"
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
    """A published speed, and the settings that its source names."""

    source: str
    setup: str
    gpus: int
    tflops_per_gpu: float
    overrides: tuple[str, ...]
    rows_together: int = 1  # documents in a microbatch
    note: str = ""
    document_tokens: int = 4096
    machine: str = "h100"
    names_settings: bool = False  # all that the model needs
    has_frozen_weights: bool = False  # LoRA: no weight gradients of the base model


TRL = "TRL issue 5713"
PRIME = "prime-rl BENCHMARKS.md"
FULL = "memory.recompute=full"


def _trl(tokens: int, gpus: int, mfu: float, setup: str, *overrides: str) -> Published:
    context = next((int(item.split("=")[1]) for item in overrides if item.startswith("parallel.context=")), 1)
    rows = f"train.global_batch_rows={gpus // context}"
    name = f"{gpus} H100, {tokens:,} tokens, {setup}"
    return Published(TRL, name, gpus, 989.5 * mfu, (FULL, rows, *overrides), document_tokens=tokens)


def _tflops(tokens_per_second: float, tokens: int) -> float:
    """Convert a published rate of a GPU, for documents of `tokens`, to TFLOP/s."""
    model = load_config(RECIPE).model
    flops = training_flops(model, tokens=tokens, squared_tokens=tokens**2, head_tokens=tokens)
    return tokens_per_second * flops / tokens / 1e12


ULYSSES = "parallel.context_communication=a2a"
PUBLISHED = [
    Published("Megatron-Bridge docs/training/moe-optimization", "16 H100, BF16, EP16, HybridEP, CUDA graphs", 16, 299,
              ("parallel.expert=16", "moe.dispatcher=hybridep", "train.global_batch_rows=1024"), names_settings=True),
    Published("same, smoke run 2026-05-17", "16 H100, BF16, EP16, alltoall", 16, 132.9,
              ("parallel.expert=16", "train.global_batch_rows=1024"), names_settings=True),
    Published("NeMo Automodel docs/performance-summary", "8 H100, BF16, EP8, DeepEP, 4 rows together", 8, 277.0,
              ("parallel.expert=8", "moe.dispatcher=deepep", "train.global_batch_rows=512"), 4, names_settings=True),
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
    _trl(16_384, 16, 0.323, "FSDP2, EP8", "parallel.expert=8"),
    _trl(32_768, 16, 0.392, "ZeRO-2, EP8", "parallel.expert=8"),
    _trl(65_536, 32, 0.401, "ZeRO-2, EP32", "parallel.expert=32"),
    _trl(262_144, 64, 0.328, "ZeRO-3, Ulysses 2", "parallel.context=2", ULYSSES),
    _trl(524_288, 64, 0.321, "ZeRO-3, Ulysses 4", "parallel.context=4", ULYSSES),
    _trl(1_048_576, 64, 0.314, "ZeRO-3, Ulysses 8", "parallel.context=8", ULYSSES),
    Published("TRL pull request 6845", "8 H100, 1,048,576 tokens, CP8, 483 s", 8,
              _tflops(1_048_576 / 483 / 8, 1_048_576),
              (FULL, "parallel.context=8", "train.global_batch_rows=1"), document_tokens=1_048_576,
              names_settings=True),
    Published(PRIME, "8 H100, 65,536 tokens, LoRA", 8, _tflops(2924, 65_536),
              (FULL, "train.global_batch_rows=8"), document_tokens=65_536, has_frozen_weights=True),
    Published(PRIME, "8 H200, 16,384 tokens, full", 8, _tflops(4379, 16_384),
              (FULL, "train.global_batch_rows=8"), document_tokens=16_384, machine="h200"),
]  # fmt: skip


def predict(run: Published) -> Plan:
    """Plan a published run: documents of one length, all tokens supervised, balanced routing."""
    tokens, together = run.document_tokens, run.rows_together
    extra = ("parallel.expert=1", f"data.seq_length_tokens={tokens * together}")
    config = load_config(RECIPE, [*BASE, *extra, *run.overrides])
    if together > 1:
        batch = config.train.global_batch_rows // together
        config = load_config(RECIPE, [*BASE, *extra, *run.overrides, f"train.global_batch_rows={batch}"])
    flops = training_flops(config.model, tokens=tokens, squared_tokens=tokens**2, head_tokens=tokens) * together
    workload = Workload(
        source="published",
        num_rows=config.train.global_batch_rows,
        num_steps=1,
        row_tokens=tokens * together,
        document_tokens=tokens * together,
        lengths=length_classes([tokens] * together, 1),
        supervised_tokens=tokens * together,
        costs=(flops,) * config.train.global_batch_rows,
        fullest=RowContents((tokens,) * together, tokens * together),
    )
    layout = build_layout(config.parallel, run.gpus)
    plan = make_plan(config, layout, find_speeds(run.machine), workload, expert_load=1.0)
    if run.has_frozen_weights:
        # of the three products of a linear layer, the one for the weight's gradient is absent; the head is small
        return replace(plan, time=replace(plan.time, arithmetic=plan.time.arithmetic * 2 / 3))
    return plan


def main() -> None:
    """Print the table as Markdown."""
    print("| source | setup | published TFLOP/s/GPU | predicted | off by |\n|---|---|---|---|---|")
    for run in PUBLISHED:
        predicted = predict(run).flops_per_second_per_gpu / 1e12
        note = f"; {run.note}" if run.note else ""
        print(
            f"| {run.source} | {run.setup}{note} | {run.tflops_per_gpu:.0f} | {predicted:.0f} "
            f"| {predicted / run.tflops_per_gpu - 1:+.0%} |"
        )


if __name__ == "__main__":
    main()
