"""One table of precisions: our names, Megatron's fields and Transformer Engine's recipe class for each.

Torch is not imported: the table also serves the checks that come before any process group.
Field names are held to the installed megatron-core, recipe names to Transformer Engine's wheel, by a test.
"""

from dataclasses import dataclass
from typing import Any, Literal

from acc_megatron.config import Config, Fp8Config

Format = Literal["e4m3", "hybrid"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an FP8 recipe scales, in Megatron's and Transformer Engine's words."""

    megatron: str  # TransformerConfig.fp8_recipe
    engine_class: str  # in transformer_engine.common.recipe
    engine_arguments: tuple[str, ...]  # those that Megatron passes and it takes
    format: Format  # e4m3 throughout, or hybrid: e5m2 for the gradients of outputs
    alignment_tokens: int  # what the tokens of an expert are padded to
    alignment_dim: int  # what every dim of a quantised matrix is a multiple of
    capability: float  # of the oldest GPU that has it
    hardware: str


@dataclass(frozen=True, slots=True)
class Precision:
    """The type that parameters and activations are kept in, and the recipe of the matrix products, if any."""

    dtype: Literal["float32", "bfloat16"]
    recipe: Recipe | None = None


# Megatron 0.19.2 also passes override_linear_precision, which Transformer Engine 2.20 no longer has and lets drop
_DELAYED_ARGUMENTS = ("margin", "fp8_format", "amax_compute_algo", "amax_history_len", "fp8_dpa", "fp8_mha")
PRECISIONS = {
    "float32": Precision("float32"),
    "bfloat16": Precision("bfloat16"),
    "fp8_delayed": Precision(
        "bfloat16", Recipe("delayed", "DelayedScaling", _DELAYED_ARGUMENTS, "hybrid", 16, 16, 8.9, "Ada or Hopper")
    ),
    "fp8_current": Precision(
        "bfloat16",
        Recipe("tensorwise", "Float8CurrentScaling", ("fp8_format", "fp8_dpa"), "hybrid", 16, 16, 8.9, "Ada or Hopper"),
    ),
    "fp8_blockwise": Precision(
        "bfloat16", Recipe("blockwise", "Float8BlockScaling", ("fp8_format",), "e4m3", 16, 16, 9.0, "Hopper")
    ),
    "fp8_mxfp8": Precision(
        "bfloat16", Recipe("mxfp8", "MXFP8BlockScaling", ("fp8_format", "fp8_dpa"), "e4m3", 32, 32, 10.0, "Blackwell")
    ),
}


def fp8_format(precision: str, fp8: Fp8Config) -> Format:
    """The number format: the config's, or the recipe's own."""
    recipe = PRECISIONS[precision].recipe
    assert recipe is not None
    return recipe.format if fp8.format == "auto" else fp8.format


def shares_gradient_buffer(precision: str, fp8: Fp8Config) -> bool:
    """MXFP8 parameters are gathered through the gradient buffer: they keep two copies, which no buffer could map."""
    return fp8.param_gather and precision == "fp8_mxfp8"


def transformer_fields(precision: str, fp8: Fp8Config, *, dispatcher: str) -> dict[str, Any]:
    """Fields of TransformerConfig for Transformer Engine's FP8; empty for the others.

    Where the dispatcher allows, the router pads each expert's tokens to the recipe's alignment, which saves a copy.
    """
    recipe = PRECISIONS[precision].recipe
    if recipe is None:
        return {}
    fields: dict[str, Any] = {
        "fp8": fp8_format(precision, fp8),
        "fp8_recipe": recipe.megatron,
        "fp8_param": fp8.param_gather,
        "moe_router_padding_for_quantization": dispatcher != "allgather",
    }
    if precision == "fp8_delayed":
        fields |= {"fp8_amax_history_len": fp8.amax_history_steps, "fp8_amax_compute_algo": fp8.amax_choice}
    if fp8.bf16_layers_at_start or fp8.bf16_layers_at_end:
        fields |= {
            "first_last_layers_bf16": True,
            "num_layers_at_start_in_bf16": fp8.bf16_layers_at_start,
            "num_layers_at_end_in_bf16": fp8.bf16_layers_at_end,
        }
    return fields


def ddp_fields(precision: str, fp8: Fp8Config) -> dict[str, Any]:
    """Fields of DistributedDataParallelConfig."""
    if PRECISIONS[precision].recipe is None:
        return {}
    shares = shares_gradient_buffer(precision, fp8)
    return {"fp8_param_gather": fp8.param_gather, "reuse_grad_buf_for_mxfp8_param_ag": shares}


def optimizer_fields(precision: str, fp8: Fp8Config) -> dict[str, Any]:
    """Fields of OptimizerConfig."""
    recipe = PRECISIONS[precision].recipe
    if recipe is None:
        return {}
    shares = shares_gradient_buffer(precision, fp8)
    return {"fp8_recipe": recipe.megatron, "reuse_grad_buf_for_mxfp8_param_ag": shares}


def quantised_dims(config: Config) -> list[tuple[str, int]]:
    """Every dim of the matrices that FP8 multiplies on one rank, with the sum that gives it."""
    model, parallel = config.model, config.parallel
    tensor, expert_tensor = parallel.tensor, parallel.expert_tensor
    heads, groups, dim = model.num_attention_heads, model.num_key_value_heads, model.head_dim
    inner = model.moe_intermediate_size
    return [
        ("model.hidden_size", model.hidden_size),
        (
            f"(num_attention_heads {heads} + 2 x num_key_value_heads {groups}) x head_dim {dim} / tp {tensor}",
            (heads + 2 * groups) * dim // tensor,
        ),
        (f"num_attention_heads {heads} x head_dim {dim} / tp {tensor}", heads * dim // tensor),
        (f"moe_intermediate_size {inner} / etp {expert_tensor}", inner // expert_tensor),
    ]
