"""Predicted memory against the measured peaks of real runs, and its parts against independent counts."""

import dataclasses

import pytest
from support.commands import ROOT
from support.memory_matrix import CASES, Case, compare

from acc_megatron.config import Config, load_config
from acc_megatron.mesh.layout import build_layout
from acc_megatron.plan import memory
from acc_megatron.plan.activations import layer_tensors
from acc_megatron.plan.memory import RowContents, StageMemory, head_rows, in_flight, stage_memory
from acc_megatron.plan.optimizer_bytes import parameter_bytes, updated_parameters
from acc_megatron.plan.parameters import Parameters, stage_parameters
from acc_megatron.plan.rank_sizes import rank_sizes

RECIPE = ROOT / "tests" / "support" / "recipe_30b.toml"


def recipe(*overrides: str) -> Config:
    return load_config(RECIPE, overrides)


def case(name: str) -> Case:
    (found,) = [case for case in CASES if case.name == name] or [case for case in CASES if name in case.name]
    return found


@pytest.mark.distributed
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("base",), id="one run"),
        pytest.param(("dense, tied", "dense, selective"), id="dense", marks=pytest.mark.slow),
        pytest.param(("dense, TP2", "dense, tied, PP2"), id="dense, 2 processes", marks=pytest.mark.slow),
        pytest.param(("long row, full recompute",), id="1 process", marks=pytest.mark.slow),
        pytest.param(("supervised rows",), id="supervised rows", marks=pytest.mark.slow),
        pytest.param(("LoRA of attention", "LoRA of experts", "frozen experts"), id="adapters", marks=pytest.mark.slow),
        pytest.param(("CP2 EP2", "PP2 of 2 chunks"), id="2 processes", marks=pytest.mark.slow),
        pytest.param(("bfloat16 moments, gradients", "fp8 moments"), id="narrow optimizer", marks=pytest.mark.slow),
        pytest.param(("EP2, bfloat16 moments",), id="narrow optimizer, 2 processes", marks=pytest.mark.slow),
    ],
)
def test_the_predicted_peak_is_within_ten_percent_of_what_a_real_run_allocates(names: tuple[str, ...]) -> None:
    for result in compare([case(name) for name in names]):
        predicted, measured = result.predicted, result.measured
        assert predicted.total == pytest.approx(measured.peak_bytes, rel=0.1), result
        # without weights, gradients and optimizer, whose size is simple arithmetic and would hide an error
        between_steps = predicted.weights + predicted.gradients + predicted.optimizer
        added = measured.peak_bytes - between_steps
        assert predicted.total - between_steps == pytest.approx(added, rel=0.15), result


@pytest.mark.parametrize("stages, chunks, microbatches", [(4, 1, 16), (4, 1, 2), (2, 2, 8), (4, 3, 8), (4, 2, 4)])
def test_microbatches_in_flight_match_megatrons_schedule(stages: int, chunks: int, microbatches: int) -> None:
    config = recipe(
        "parallel.tensor=1", "parallel.context=1", "parallel.expert=1", f"parallel.pipeline={stages}",
        f"parallel.virtual_pipeline={chunks}", f"train.global_batch_rows={microbatches}",
    )  # fmt: skip
    layout = build_layout(config.parallel, stages)
    for stage in range(stages):
        # count Megatron's schedule: a warm-up of forward passes, then forward and backward passes in turn
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


def test_the_distributed_optimizer_splits_experts_over_their_own_replicas() -> None:
    config = recipe()
    layout = build_layout(config.parallel, 64)
    # 64 = TP2 x CP8 x DP4: dense over 32; EP8: experts over 8; 12 bytes per parameter
    updated = updated_parameters(config, layout, Parameters(3200, 1600, 1))
    assert (updated.dense, updated.experts) == (100, 200) and parameter_bytes(config, on_gpu=True).state == 12
    unsplit = dataclasses.replace(config, parallel=dataclasses.replace(config.parallel, distributed_optimizer=False))
    assert updated_parameters(unsplit, layout, Parameters(3200, 1600, 1)).total == 4800


def test_the_stages_together_have_all_parameters_of_the_model() -> None:
    config = recipe("parallel.pipeline=4", "parallel.tensor=1", "parallel.expert=1", "parallel.context=1")
    layout = build_layout(config.parallel, 4)
    total = sum(stage_parameters(config.model, layout, stage).total for stage in range(4))
    assert total == 30_532_122_624, "Qwen3-30B-A3B in transformers"


def test_the_total_is_the_sum_of_the_reported_parts() -> None:
    config = recipe()
    layout = build_layout(config.parallel, 64)
    sizes = rank_sizes(config, layout, on_gpu=True)
    row = RowContents((131_072,), 6_000)
    said = stage_memory(config, layout, sizes, stage_parameters(config.model, layout, 0), stage=0, row=row)
    parts = [getattr(said, name) for name in StageMemory.__slots__ if name != "host"]
    assert said.total == pytest.approx(sum(parts)) and min(parts) > 0


@pytest.mark.parametrize("context, expected", [(1, 900), (2, 900), (8, 2 * (4096 // 16) + 2 * (2048 // 16))])
def test_context_rank_0_has_the_end_of_every_document(context: int, expected: int) -> None:
    config = recipe("parallel.tensor=1", f"parallel.context={context}", "data.seq_length_tokens=8192")
    sizes = rank_sizes(config, build_layout(config.parallel, 8), on_gpu=True)
    assert head_rows(config, sizes, RowContents((4096, 2048), 900)) == expected


def test_the_constants_of_the_head_equal_those_of_the_kernels() -> None:
    from acc_megatron.kernels.masked_linear_cross_entropy.autograd import WINDOW_COLUMNS
    from acc_megatron.kernels.masked_linear_cross_entropy.op import KEEP_LIMIT_BYTES

    assert (memory.HEAD_WINDOW_COLUMNS, memory.HEAD_KEEP_LIMIT_BYTES) == (WINDOW_COLUMNS, KEEP_LIMIT_BYTES)


def test_more_recompute_saves_fewer_activations() -> None:
    def activations(*overrides: str) -> float:
        config = recipe(*overrides)
        layout = build_layout(config.parallel, 64)
        sizes = rank_sizes(config, layout, on_gpu=True)
        parameters = stage_parameters(config.model, layout, 0)
        row = RowContents((131_072,), 6_000)
        return stage_memory(config, layout, sizes, parameters, stage=0, row=row).activations

    selective = "memory.recompute=selective"
    sizes = [
        activations("memory.recompute=full"),
        activations(selective, "memory.recompute_modules=['moe', 'layernorm']"),
        activations(selective, "memory.recompute_modules=['moe_act', 'layernorm']"),
        activations(selective, "memory.recompute_modules=['layernorm']"),
        activations("memory.recompute=none"),
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes) and sizes[0] > 0


def test_the_fused_activation_saves_what_megatrons_function_saves() -> None:
    import torch
    from megatron.core.fusions.fused_bias_swiglu import weighted_bias_swiglu_impl

    config = recipe("data.seq_length_tokens=1024", "model.moe_intermediate_size=16", "model.hidden_size=64")
    sizes = rank_sizes(config, build_layout(config.parallel, 64), on_gpu=True)
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = round(sizes.expert_tokens)
    gate_and_up = torch.randn(tokens, 2 * sizes.expert_ffn, dtype=torch.bfloat16, requires_grad=True)
    probability = torch.rand(tokens, 1, requires_grad=True)
    with torch.compiler.set_stance("force_eager"), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        output = weighted_bias_swiglu_impl(gate_and_up, None, probability)
        (output @ torch.ones(sizes.expert_ffn, 1, dtype=torch.bfloat16, requires_grad=True)).sum()
    predicted = {tensor.name: tensor.num_bytes for tensor in layer_tensors(sizes, [1024], aux_loss=False)}
    expected = predicted["experts: gate and up"] + predicted["experts: activation"]
    weight_bytes = sizes.expert_ffn * 2  # the last product saves its weight too
    assert sum(saved.values()) - weight_bytes == pytest.approx(expected, rel=0.01)
