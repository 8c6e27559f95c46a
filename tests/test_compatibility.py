"""What cannot work together is refused by one line that names the keys and does the sum."""

from pathlib import Path

import pytest

from acc_megatron.compatibility import check_compatible, check_job
from acc_megatron.config import load_config
from acc_megatron.errors import ConfigError
from acc_megatron.layout import build_layout

TINY = Path(__file__).parent.parent / "examples" / "tiny_cpu.toml"
FULL = Path(__file__).parent.parent / "examples" / "qwen3_30b_a3b_128k_h100.toml"
BASE = ["parallel.context=1", "parallel.expert=1", "train.global_batch_rows=4"]

REFUSED = [
    (["model.num_experts_per_tok=1"], 1, "model.num_experts_per_tok = 1 needs model.norm_topk_prob = false"),
    (["parallel.virtual_pipeline=2"], 1, "parallel.virtual_pipeline = 2 needs parallel.pipeline > 1"),
    (
        ["parallel.virtual_pipeline=2", "parallel.pipeline=2", "train.global_batch_rows=3"],
        2,
        "over 1 data-parallel ranks gives 3 microbatches, which parallel.pipeline = 2 does not divide",
    ),
    (["parallel.overlap_param_gather=true"], 1, "parallel.overlap_param_gather needs parallel.distributed_optimizer"),
    (["parallel.distributed_optimizer=true", "optimizer.kind=sgd"], 1, "works with optimizer.kind = 'adamw'"),
    (["parallel.context_communication=a2a+p2p"], 1, "and parallel.hierarchical_context go together"),
    (
        ["parallel.context=4", "parallel.context_communication=a2a+p2p", "parallel.hierarchical_context=[2, 4]"],
        4,
        "parallel.hierarchical_context 2 x 4 = 8 is not parallel.context = 4",
    ),
    (
        ["parallel.context=4", "parallel.context_communication=a2a"],
        4,
        "num_key_value_heads 2 / tp 1 = 2 does not divide by cp 4",
    ),
    (
        ["memory.recompute_modules=['attention']"],
        1,
        "memory.recompute_modules: 'attention' is unknown; known: core_attn",
    ),
    (
        ["memory.offload_layers=1", "memory.recompute=full"],
        1,
        "memory.offload_layers does not work with memory.recompute = 'full'",
    ),
    (
        ["memory.offload_layers=1", "parallel.pipeline=2"],
        2,
        "memory.offload_layers does not work with parallel.pipeline = 2",
    ),
    (["memory.offload_layers=2"], 1, "memory.offload_layers = 2 must be below num_hidden_layers = 2"),
    (["memory.offload_layers=1"], 1, "memory.offload_layers needs a GPU"),
    (["loss.implementation=triton"], 1, "loss.implementation = 'triton' needs a GPU; use 'auto' or 'torch'"),
    (["moe.dispatcher=deepep"], 1, "moe.dispatcher = 'deepep' needs a GPU"),
    (["memory.recompute=selective", "memory.recompute_modules=['moe_act']"], 1, "'moe_act' needs grouped GEMM"),
    (
        ["fp8.format=e4m3", "fp8.bf16_layers_at_end=1"],
        1,
        "fp8.format, fp8.bf16_layers_at_end needs train.precision = 'fp8_...', which is 'float32'",
    ),
    (
        ["train.precision=fp8_delayed", "fp8.bf16_layers_at_start=1"],
        1,
        "fp8.bf16_layers_at_start does not work with train.precision = 'fp8_delayed'",
    ),
    (
        ["train.precision=fp8_delayed", "memory.recompute=selective", "memory.recompute_modules=['layernorm']"],
        1,
        "memory.recompute_modules: 'layernorm' does not work with train.precision = 'fp8_delayed'",
    ),
    (["train.precision=fp8_delayed", "fp8.amax_history_steps=0"], 1, "fp8.amax_history_steps = 0 must be at least 1"),
    (
        ["train.precision=fp8_current", "parallel.pipeline=2", "fp8.bf16_layers_at_end=2"],
        2,
        "fp8.bf16_layers_at_end = 2 must be from 0 to model.num_hidden_layers 2 / pp 2 = 1",
    ),
    (
        ["train.precision=fp8_current", "fp8.bf16_layers_at_start=1", "fp8.bf16_layers_at_end=1"],
        1,
        "fp8.bf16_layers_at_start 1 + fp8.bf16_layers_at_end 1 = 2 leaves none of model.num_hidden_layers = 2 in FP8",
    ),
    (
        ["train.precision=fp8_mxfp8", "model.moe_intermediate_size=96", "parallel.expert_tensor=2"],
        2,
        "needs multiples of 32: moe_intermediate_size 96 / etp 2 = 48 is none",
    ),
    (
        ["train.precision=fp8_current", "model.head_dim=9"],
        1,
        "multiples of 16: (num_attention_heads 4 + 2 x num_key_value_heads 2) x head_dim 9 / tp 1 = 72 is none",
    ),
    (
        ["train.precision=fp8_mxfp8", "data.seq_length_tokens=192", "parallel.context=4"],
        4,
        "needs multiples of 32: data.seq_length_tokens 192 / (cp 4 x tp 1) = 48 is none",
    ),
    (["train.precision=fp8_current", "fp8.param_gather=true"], 1, "what parallel.distributed_optimizer shards"),
    (
        [
            "train.precision=fp8_mxfp8",
            "fp8.param_gather=true",
            "parallel.distributed_optimizer=true",
            "parallel.overlap_grad_reduce=true",
            "parallel.overlap_param_gather=true",
        ],
        1,
        "gathers through the gradient buffer, which parallel.overlap_param_gather would still be filling",
    ),
    (
        ["train.precision=fp8_current", "fp8.param_gather=true", "parallel.distributed_optimizer=true"],
        1,
        "fp8.param_gather needs a GPU",
    ),
]


@pytest.mark.parametrize(("overrides", "world", "message"), REFUSED, ids=[case[2][:40] for case in REFUSED])
def test_a_combination_that_cannot_work_is_refused_by_its_keys(overrides: list[str], world: int, message: str) -> None:
    config = load_config(TINY, [*BASE, *overrides])
    with pytest.raises(ConfigError) as caught:
        check_compatible(config, build_layout(config.parallel, world), has_gpu=False)
    assert message in str(caught.value)


def test_a_recipe_that_the_gpu_lacks_is_refused_by_both_capabilities() -> None:
    for precision, needed, has in (("fp8_mxfp8", 10.0, 9.0), ("fp8_blockwise", 9.0, 8.9), ("fp8_current", 8.9, 8.0)):
        config = load_config(FULL, [f"train.precision={precision}"])
        layout = build_layout(config.parallel, 64)
        with pytest.raises(ConfigError, match=rf"compute capability {needed} .*, this machine's has {has}"):
            check_compatible(config, layout, has_gpu=True, capability=has)
        check_compatible(config, layout, has_gpu=True, capability=needed)


def test_the_recipes_pass() -> None:
    assert str(check_job(load_config(TINY), 2)) == "TP1 CP2 PP1 EP2 DP1"
    config = load_config(FULL)
    check_compatible(config, build_layout(config.parallel, 64), has_gpu=True)
