"""The memory model against measured peaks of real runs, and its parts against independent counts."""

import dataclasses
from pathlib import Path

import pytest
from memory_matrix import CASES, Case, compare

from acc_megatron.config import Config, load_config
from acc_megatron.layout import build_layout
from acc_megatron.plan import memory
from acc_megatron.plan.memory import Row, StageMemory, head_rows, in_flight, optimizer_bytes, stage_memory
from acc_megatron.plan.parameters import Parameters, stage_parameters
from acc_megatron.plan.shapes import rank_shapes

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "examples" / "qwen3_30b_a3b_128k_h100.toml"


def recipe(*overrides: str) -> Config:
    return load_config(RECIPE, overrides)


def case(part: str) -> Case:
    (found,) = [case for case in CASES if part in case.name]
    return found


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(
    "parts", [("base", "long row, full recompute"), ("CP2 EP2", "PP2 of 2 chunks")], ids=["1 process", "2 processes"]
)
def test_the_predicted_peak_is_within_a_tenth_of_what_a_real_run_allocates(parts: tuple[str, ...]) -> None:
    for chosen, stage, said, found in compare([case(part) for part in parts]):
        assert said.total == pytest.approx(found.peak_bytes, rel=0.1), f"{chosen.name}, stage {stage}"
        # without weights, gradients and optimizer, which are plain arithmetic, so that nothing hides under them
        standing = said.weights + said.gradients + said.optimizer
        added = found.peak_bytes - standing
        assert said.total - standing == pytest.approx(added, rel=0.15), f"{chosen.name}, stage {stage}"


@pytest.mark.parametrize("stages, chunks, microbatches", [(4, 1, 16), (4, 1, 2), (2, 2, 8), (4, 3, 8), (4, 2, 4)])
def test_microbatches_in_flight_are_those_of_megatrons_schedule(stages: int, chunks: int, microbatches: int) -> None:
    config = recipe(
        "parallel.tensor=1", "parallel.context=1", "parallel.expert=1", f"parallel.pipeline={stages}",
        f"parallel.virtual_pipeline={chunks}", f"train.global_batch_rows={microbatches}",
    )  # fmt: skip
    layout = build_layout(config.parallel, stages)
    for stage in range(stages):
        # Megatron's schedule, counted: a warm-up of forwards, then one forward and one backward in turn
        if chunks == 1:
            warm_up = min(stages - stage - 1, microbatches)
        else:
            warm_up = min((stages - stage - 1) * 2 + (chunks - 1) * stages, microbatches * chunks)
        alive = most = warm_up
        for _ in range(microbatches * chunks - warm_up):
            alive += 1
            most = max(most, alive)
            alive -= 1
        assert in_flight(config, layout, stage) == most / chunks


def test_the_distributed_optimizer_shards_experts_over_their_own_replicas() -> None:
    config = recipe()
    layout = build_layout(config.parallel, 64)
    # 64 = TP2 x CP8 x DP4: dense over 32; EP8: experts over 8; 12 bytes a parameter
    assert optimizer_bytes(config, layout, Parameters(3200, 1600, 1)) == 12 * (100 + 200)
    whole = dataclasses.replace(config, parallel=dataclasses.replace(config.parallel, distributed_optimizer=False))
    assert optimizer_bytes(whole, layout, Parameters(3200, 1600, 1)) == 12 * 4800


def test_all_stages_together_hold_the_model_once_for_each_replica() -> None:
    config = recipe("parallel.pipeline=4", "parallel.tensor=1", "parallel.expert=1", "parallel.context=1")
    layout = build_layout(config.parallel, 4)
    total = sum(stage_parameters(config.model, layout, stage).total for stage in range(4))
    assert total == 30_532_122_624, "Qwen3-30B-A3B, by transformers"


def test_the_total_is_the_sum_of_what_is_reported() -> None:
    config = recipe()
    layout = build_layout(config.parallel, 64)
    shapes = rank_shapes(config, layout, on_gpu=True)
    row = Row((131_072,), 6_000)
    said = stage_memory(config, layout, shapes, stage_parameters(config.model, layout, 0), stage=0, row=row)
    parts = [getattr(said, name) for name in StageMemory.__slots__]
    assert said.total == pytest.approx(sum(parts)) and min(parts) > 0


@pytest.mark.parametrize("context, expected", [(1, 900), (2, 900), (8, 2 * (4096 // 16) + 2 * (2048 // 16))])
def test_context_rank_0_holds_every_documents_end(context: int, expected: int) -> None:
    config = recipe("parallel.tensor=1", f"parallel.context={context}", "data.seq_length_tokens=8192")
    shapes = rank_shapes(config, build_layout(config.parallel, 8), on_gpu=True)
    assert head_rows(shapes, Row((4096, 2048), 900)) == expected


def test_the_heads_constants_are_the_kernels_own() -> None:
    from acc_megatron.kernels.masked_linear_cross_entropy.head import WINDOW_COLUMNS
    from acc_megatron.kernels.masked_linear_cross_entropy.op import KEEP_LIMIT_BYTES

    assert (memory.HEAD_WINDOW_COLUMNS, memory.HEAD_KEEP_LIMIT_BYTES) == (WINDOW_COLUMNS, KEEP_LIMIT_BYTES)


def test_recompute_keeps_less_and_never_nothing() -> None:
    def activations(*overrides: str) -> float:
        config = recipe(*overrides)
        layout = build_layout(config.parallel, 64)
        shapes = rank_shapes(config, layout, on_gpu=True)
        parameters = stage_parameters(config.model, layout, 0)
        row = Row((131_072,), 6_000)
        return stage_memory(config, layout, shapes, parameters, stage=0, row=row).activations

    selective = "memory.recompute=selective"
    sizes = [
        activations("memory.recompute=full"),
        activations(selective, "memory.recompute_modules=['moe', 'layernorm']"),
        activations(selective, "memory.recompute_modules=['moe_act', 'layernorm']"),
        activations(selective, "memory.recompute_modules=['layernorm']"),
        activations("memory.recompute=none"),
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes) and sizes[0] > 0
