"""Settings that cannot work together are refused by one line with the keys and the numbers."""

import ast
import inspect
import os
import re

import pytest
from support.commands import ROOT

from acc_megatron.compatibility import check_compatible, check_job
from acc_megatron.compatibility.deterministic import check_variables
from acc_megatron.compatibility.engine import check_engine
from acc_megatron.config import load_config
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.engine_variables import OFFLOAD, offload_modules_only
from acc_megatron.mesh.layout import build_layout

TINY = ROOT / "examples" / "tiny_cpu.toml"
FULL = ROOT / "tests" / "support" / "recipe_30b.toml"
BASE = ["parallel.context=1", "parallel.expert=1", "train.global_batch_rows=4"]
DENSE = ["model.family=qwen3", "model.intermediate_size=128"]
DENSE += [f"model.{key}=0" for key in ("num_experts", "num_experts_per_tok", "moe_intermediate_size")]
SELECTIVE = ["memory.recompute=selective"]
SHARDED = ["parallel.distributed_optimizer=true"]
NO_MOE = ["moe.load_balancing=none", "moe.load_balancing_coefficient=1e-3"]

REFUSED = [
    (["profile.memory=true"], 1, "profile.memory needs profile.steps, the steps to record, such as [10, 11]"),
    (["profile.steps=[2]", "profile.trace=false"], 1, "profile.steps records nothing: set profile.trace,"),
    (["profile.steps=[0, 1]"], 1, "profile.steps = [0, 1]: steps are counted from 1"),
    (["profile.steps=[1]", "profile.ranks=[1]"], 1, "profile.ranks = [1]: give ranks from 0 to 0"),
    (["profile.steps=[1]", "profile.nvtx=true"], 1, "profile.nvtx needs a GPU; profile.trace works without one"),
    (["model.num_experts_per_tok=1"], 1, "model.num_experts_per_tok = 1 needs model.norm_topk_prob = false"),
    (["model.num_experts_per_tok=9"], 1, "model.num_experts_per_tok = 9 exceeds model.num_experts = 8"),
    (["model.num_experts=0"], 1, "model.num_experts = 0 must be at least 1 for model.family = 'qwen3_moe'"),
    (["model.family=llama"], 1, "model.family must be one of 'qwen3', 'qwen3_moe', got 'llama'"),
    (
        [*DENSE, "model.num_experts=8"],
        1,
        "model.num_experts = 8: model.family = 'qwen3' has no experts; remove the key",
    ),
    (DENSE, 1, "[moe] has no effect: model.family = 'qwen3' has no experts; remove it"),
    (
        [*DENSE, *NO_MOE, "memory.recompute=selective"],
        1,
        "memory.recompute_modules: 'moe_act' needs layers with experts; known modules: core_attn, layernorm, mlp",
    ),
    (["train.precision=fp9"], 1, "train.precision must be one of 'float32', 'bfloat16', 'fp8_delayed'"),
    (["optimizer.kind=lion"], 1, "optimizer.kind must be one of 'adamw', 'sgd', got 'lion'"),
    (
        ["optimizer.schedule=square"],
        1,
        "optimizer.schedule must be one of 'cosine', 'linear', 'constant', 'wsd', got 'square'",
    ),
    (["parallel.virtual_pipeline=2"], 1, "parallel.virtual_pipeline = 2 needs parallel.pipeline > 1"),
    (
        ["parallel.virtual_pipeline=2", "parallel.pipeline=2", "train.global_batch_rows=3"],
        2,
        "of parallel.pipeline = 2; train.global_batch_rows = 3 over 1 data-parallel ranks gives 3 microbatches",
    ),
    (["parallel.overlap_param_gather=true"], 1, "parallel.overlap_param_gather needs parallel.distributed_optimizer"),
    (
        ["parallel.distributed_optimizer=true", "optimizer.kind=sgd"],
        1,
        "parallel.distributed_optimizer needs optimizer.kind = 'adamw', got 'sgd'",
    ),
    (["optimizer.moments=fp8"], 1, "optimizer.moments = 'fp8' needs parallel.distributed_optimizer, also on one GPU"),
    (["optimizer.moments=fp8", "optimizer.kind=sgd"], 1, "'fp8' needs optimizer.kind = 'adamw', got 'sgd'"),
    ([*SHARDED, "optimizer.gradients=bfloat16"], 1, "optimizer.gradients = 'bfloat16' needs bfloat16 weights, got"),
    (
        [*SHARDED, "train.precision=bfloat16", "optimizer.moments=fp8", "adapter.rank=4"],
        1,
        "optimizer.moments = 'fp8' does not work with adapter.rank = 4, whose optimizer state is small: remove it",
    ),
    ([*SHARDED, "optimizer.offload_fraction=1.1"], 1, "optimizer.offload_fraction = 1.1 must be from 0 to 1"),
    (
        [*SHARDED, "train.precision=bfloat16", "optimizer.offload_fraction=0.5", "optimizer.moments=bfloat16"],
        1,
        "optimizer.offload_fraction = 0.5 does not work with optimizer.moments = 'bfloat16'",
    ),
    (
        [*SHARDED, "train.precision=fp8_current", "optimizer.master_weights=remainders"],
        1,
        "optimizer.master_weights = 'remainders' does not work with train.precision = 'fp8_current'",
    ),
    (
        [*SHARDED, "train.precision=fp8_current", "fp8.param_gather=true", "optimizer.offload_fraction=1.0"],
        1,
        "optimizer.offload_fraction = 1.0 does not work with fp8.param_gather",
    ),
    (["parallel.context_communication=a2a+p2p"], 1, "and parallel.hierarchical_context must be set together"),
    (
        ["parallel.context=4", "parallel.context_communication=a2a+p2p", "parallel.hierarchical_context=[2, 4]"],
        4,
        "parallel.hierarchical_context 2 x 4 = 8 must equal parallel.context = 4",
    ),
    (
        ["parallel.context=4", "parallel.context_communication=a2a"],
        4,
        "num_key_value_heads 2 / tp 1 = 2 is not a multiple of cp 4",
    ),
    (
        ["memory.recompute_modules=['attention']"],
        1,
        "memory.recompute_modules: unknown module 'attention'; known modules: core_attn",
    ),
    (["optimizer.warmup_fraction=1.5"], 1, "optimizer.warmup_fraction = 1.5 must be from 0 to 1"),
    (["optimizer.decay_fraction=0.0"], 1, "optimizer.decay_fraction = 0.0 must be greater than 0"),
    (["memory.offload_modules=['core_attn']"], 1, "memory.offload_modules needs a GPU; without one, activations are"),
    (["memory.offload_modules=['attention']"], 1, "memory.offload_modules: unknown module 'attention'; known modules"),
    (
        ["memory.offload_modules=['attn_norm']"],
        1,
        "'attn_norm' does nothing, because Transformer Engine fuses this norm",
    ),
    (
        ["memory.offload_modules=['core_attn']", "parallel.pipeline=2"],
        2,
        "memory.offload_modules needs two layers in a model chunk: model.num_hidden_layers = 2 over parallel.pipeline",
    ),
    (["memory.offload_modules=['fused_group_mlp']"], 1, "'fused_group_mlp' needs Transformer Engine's op fuser"),
    (
        ["loss.last_layer_rows=supervised", "moe.dispatcher=allgather", "parallel.expert=2"],
        2,
        "loss.last_layer_rows = 'supervised' does not work with moe.dispatcher = 'allgather' over parallel.expert = 2",
    ),
    (["memory.offload_modules=['attn_proj']"], 1, "memory.offload_modules: 'attn_proj' needs 'core_attn' too"),
    (["memory.offload_modules=['moe_act', 'moe_act']"], 1, "names a module twice"),
    (
        ["memory.offload_modules=['core_attn']", "memory.recompute=full"],
        1,
        "memory.offload_modules has no effect with memory.recompute = 'full'",
    ),
    (
        [*SELECTIVE, "memory.recompute_modules=['moe']", "memory.offload_modules=['expert_fc1']"],
        1,
        "'expert_fc1' does not work with 'moe' in memory.recompute_modules",
    ),
    (
        [*SELECTIVE, "moe.grouped_gemm=false"],
        1,
        "memory.recompute_modules: the modules of the experts need moe.grouped",
    ),
    ([*SELECTIVE, "memory.recompute_modules=['mla_up_proj']"], 1, "'mla_up_proj' needs multi-latent attention"),
    ([*SELECTIVE, "memory.recompute_modules=['shared_experts']"], 1, "'shared_experts' needs shared experts; known"),
    ([*SELECTIVE, "memory.recompute_modules=['gdn_norm_out']"], 1, "'gdn_norm_out' needs gated delta net layers"),
    (
        [*SELECTIVE, "memory.recompute_modules=['mlp']"],
        1,
        "'mlp' needs layers with a dense MLP; known modules: core_attn",
    ),
    (
        [*DENSE, *NO_MOE, "memory.offload_modules=['mlp_norm']"],
        1,
        "'mlp_norm' does nothing without experts, because Transformer Engine fuses this norm",
    ),
    (["loss.implementation=triton"], 1, "loss.implementation = 'triton' needs a GPU; use 'auto' or 'torch'"),
    (["moe.dispatcher=deepep"], 1, "moe.dispatcher = 'deepep' needs a GPU"),
    (["memory.recompute=selective", "memory.recompute_modules=['moe_act']"], 1, "'moe_act' needs grouped GEMM"),
    (
        ["fp8.format=e4m3", "fp8.bf16_layers_at_end=1"],
        1,
        "fp8.format, fp8.bf16_layers_at_end: needs train.precision = 'fp8_...', got 'float32'",
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
        "fp8.bf16_layers_at_end = 2 must be from 0 to the number of layers of a pipeline stage, model.num_hidden_layers"
        " 2 / pp 2 = 1",
    ),
    (
        ["train.precision=fp8_current", "fp8.bf16_layers_at_start=1", "fp8.bf16_layers_at_end=1"],
        1,
        "fp8.bf16_layers_at_start 1 + fp8.bf16_layers_at_end 1 = 2 leaves none of model.num_hidden_layers = 2 in FP8",
    ),
    (
        ["train.precision=fp8_mxfp8", "model.moe_intermediate_size=96", "parallel.expert_tensor=2"],
        2,
        "needs multiples of 32: moe_intermediate_size 96 / etp 2 = 48 is not a multiple of 32",
    ),
    (
        ["train.precision=fp8_current", "model.head_dim=9"],
        1,
        "(num_attention_heads 4 + 2 x num_key_value_heads 2) x head_dim 9 / tp 1 = 72 is not a multiple of 16",
    ),
    (
        ["train.precision=fp8_mxfp8", "data.seq_length_tokens=192", "parallel.context=4"],
        4,
        "needs multiples of 32: data.seq_length_tokens 192 / (cp 4 x tp 1) = 48 is not a multiple of 32",
    ),
    (
        ["train.precision=fp8_current", "fp8.param_gather=true"],
        1,
        "fp8.param_gather needs parallel.distributed_optimizer",
    ),
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
def test_settings_that_cannot_work_together_are_refused_by_their_keys(
    overrides: list[str], world: int, message: str
) -> None:
    config = load_config(TINY, [*BASE, *overrides])
    with pytest.raises(ConfigError) as caught:
        check_compatible(config, build_layout(config.parallel, world), has_gpu=False)
    assert message in str(caught.value)


def test_an_fp8_recipe_that_the_gpu_does_not_support_is_refused_with_both_capabilities() -> None:
    for precision, needed, has in (("fp8_mxfp8", 10.0, 9.0), ("fp8_blockwise", 9.0, 8.9), ("fp8_current", 8.9, 8.0)):
        config = load_config(FULL, [f"train.precision={precision}"])
        layout = build_layout(config.parallel, 64)
        with pytest.raises(ConfigError, match=rf"compute capability {needed} .*, this machine's has {has}"):
            check_compatible(config, layout, has_gpu=True, capability=has)
        check_compatible(config, layout, has_gpu=True, capability=needed)


def test_the_example_recipes_are_accepted() -> None:
    assert str(check_job(load_config(TINY), 2)) == "TP1 CP2 PP1 EP2 DP1"
    for name, gpus in (("", 64), ("_16_gpus", 16), ("_8_gpus", 8)):
        config = load_config(ROOT / "examples" / f"qwen3_30b_a3b_128k_h100{name}.toml")
        check_compatible(config, build_layout(config.parallel, gpus), has_gpu=True)


@pytest.mark.parametrize(
    ("kind", "last_refused", "first_accepted"), [("all_gather", "2.17.1", "2.18.0"), ("a2a+p2p", "2.18.0", "2.19.0")]
)
def test_context_communication_that_an_old_transformer_engine_lacks_is_refused_with_both_versions(
    kind: str, last_refused: str, first_accepted: str
) -> None:
    config = load_config(FULL, [f"parallel.context_communication={kind}", "parallel.hierarchical_context=[2, 4]"])
    layout = build_layout(config.parallel, 64)
    with pytest.raises(ConfigError, match=rf"needs Transformer Engine .* or newer, {last_refused} is installed"):
        check_engine(config, layout, last_refused)
    check_engine(config, layout, first_accepted)
    check_engine(load_config(FULL), layout, "2.10.0")


def test_delayed_scaling_is_refused_where_transformer_engine_cannot_load_its_scales() -> None:
    config = load_config(FULL, ["train.precision=fp8_delayed"])
    layout = build_layout(config.parallel, 64)
    check_engine(config, layout, "2.17.1")
    with pytest.raises(ConfigError, match=r"older than 2\.18, 2\.18\.0 is installed.*use 'fp8_current'"):
        check_engine(config, layout, "2.18.0")


def test_a_deterministic_run_refuses_what_can_change_the_order_of_sums() -> None:
    config = load_config(FULL, ["train.deterministic=true"])
    layout = build_layout(config.parallel, 64)
    check_compatible(config, layout, has_gpu=True)
    for dispatcher in ("deepep", "hybridep"):
        other = load_config(FULL, ["train.deterministic=true", f"moe.dispatcher={dispatcher}"])
        with pytest.raises(ConfigError, match=f"does not work with moe.dispatcher = '{dispatcher}'.*use 'alltoall'"):
            check_compatible(other, layout, has_gpu=True)
    check_variables(config, {"NCCL_ALGO": "Ring,CollnetChain", "CUBLAS_WORKSPACE_CONFIG": ":16:8"})
    for name, value in {"NCCL_ALGO": "Ring,Tree", "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "1"}.items():
        check_variables(load_config(FULL), {name: value})
        with pytest.raises(ConfigError, match=f"environment variable {name} is '{value}'.*unset {name}"):
            check_variables(config, {name: value})


def test_the_default_of_selective_recompute_keeps_attention_and_is_refused_on_cpu_with_what_to_use() -> None:
    config = load_config(FULL, ["memory.recompute=selective"])
    assert config.memory.recompute_modules == ["moe_act", "layernorm"]
    layout = build_layout(config.parallel, 64)
    check_compatible(config, layout, has_gpu=True)
    with pytest.raises(ConfigError, match=r"'moe_act' needs grouped GEMM, .* use \['layernorm'\] on CPU"):
        check_compatible(config, layout, has_gpu=False)


def test_every_module_of_megatron_core_is_accepted_or_refused_with_its_reason() -> None:
    from acc_megatron.mesh.process_groups import process_groups  # noqa: F401 - first: makes megatron run without CUDA

    # isort: split
    from megatron.core.transformer import transformer_config

    from acc_megatron.compatibility import memory

    source = inspect.getsource(transformer_config.TransformerConfig.__post_init__)
    lists = [ast.literal_eval(text) for text in re.findall(r"allowed_modules = (\{.*?\})", source, re.DOTALL)]
    recompute, offload = lists
    known = {*memory.RECOMPUTE_MODULES, *memory.DENSE_RECOMPUTE_MODULES, *memory.ABSENT_RECOMPUTE_MODULES}
    assert known == recompute
    assert {*memory.OFFLOAD_MODULES, *memory.ABSENT_OFFLOAD_MODULES} == offload


def test_modules_that_are_recomputed_and_offloaded_reach_megatron_by_their_names() -> None:
    from acc_megatron.model.transformer_config import _memory_fields

    settings = ["memory.offload_modules=['qkv_linear', 'core_attn', 'attn_proj', 'mlp_norm', 'expert_fc1', 'moe_act']"]
    config = load_config(FULL, ["memory.recompute=none", *settings])
    check_compatible(config, build_layout(config.parallel, 64), has_gpu=True)
    fields = _memory_fields(config.memory)
    assert fields == {"fine_grained_activation_offloading": True, "offload_modules": config.memory.offload_modules}
    both = load_config(FULL, ["memory.recompute=selective", "memory.offload_modules=['core_attn']"])
    check_compatible(both, build_layout(both.parallel, 64), has_gpu=True)
    assert _memory_fields(both.memory)["recompute_modules"] == ["moe_act", "layernorm"]
    assert _memory_fields(both.memory)["offload_modules"] == ["core_attn"]


def test_offloaded_modules_keep_weights_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OFFLOAD, raising=False)
    offload_modules_only([])
    assert OFFLOAD not in os.environ
    offload_modules_only(["core_attn"])
    assert os.environ[OFFLOAD] == "1"
    monkeypatch.setenv(OFFLOAD, "0")
    with pytest.raises(ConfigError, match=f"needs the environment variable {OFFLOAD}=1, it is '0'"):
        offload_modules_only(["core_attn"])
