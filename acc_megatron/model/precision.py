"""The precisions that `train.precision` can name, and Megatron's fields for them; does not import torch.

A test compares field names with the installed megatron-core, and recipe names with Transformer Engine's wheel.
"""

from dataclasses import dataclass
from typing import Any, Literal

from acc_megatron.common.registry import Registry
from acc_megatron.config import Fp8Config
from acc_megatron.model.fp8.blockwise import BlockScaling
from acc_megatron.model.fp8.current import CurrentScaling
from acc_megatron.model.fp8.delayed import DelayedScaling
from acc_megatron.model.fp8.mxfp8 import Mxfp8
from acc_megatron.model.fp8.recipe import Format, Fp8Recipe


@dataclass(frozen=True, slots=True)
class Precision:
    """The dtype of parameters and activations, and the FP8 recipe of the matrix products, if any."""

    dtype: Literal["float32", "bfloat16"]
    recipe: Fp8Recipe | None = None


PRECISIONS: Registry[Precision] = Registry(
    "train.precision",
    {
        "float32": Precision("float32"),
        "bfloat16": Precision("bfloat16"),
        "fp8_delayed": Precision("bfloat16", DelayedScaling()),
        "fp8_current": Precision("bfloat16", CurrentScaling()),
        "fp8_blockwise": Precision("bfloat16", BlockScaling()),
        "fp8_mxfp8": Precision("bfloat16", Mxfp8()),
    },
)


def fp8_format(recipe: Fp8Recipe, fp8: Fp8Config) -> Format:
    """Return the number format: the configured one, or the recipe's default."""
    return recipe.default_format if fp8.format == "auto" else fp8.format


def transformer_fields(precision: str, fp8: Fp8Config, *, dispatcher: str) -> dict[str, Any]:
    """Return the fields of TransformerConfig for Transformer Engine's FP8; empty for other precisions.

    If the dispatcher allows it, the router pads each expert's tokens to the recipe's alignment, which saves a copy.
    """
    recipe = PRECISIONS[precision].recipe
    if recipe is None:
        return {}
    fields: dict[str, Any] = {
        "fp8": fp8_format(recipe, fp8),
        "fp8_recipe": recipe.megatron_name,
        "fp8_param": fp8.param_gather,
        "moe_router_padding_for_quantization": dispatcher != "allgather",
        **recipe.transformer_fields(fp8),
    }
    if fp8.bf16_layers_at_start or fp8.bf16_layers_at_end:
        fields |= {
            "first_last_layers_bf16": True,
            "num_layers_at_start_in_bf16": fp8.bf16_layers_at_start,
            "num_layers_at_end_in_bf16": fp8.bf16_layers_at_end,
        }
    return fields


def ddp_fields(precision: str, fp8: Fp8Config) -> dict[str, Any]:
    """Return the fields of DistributedDataParallelConfig; empty without FP8."""
    recipe = PRECISIONS[precision].recipe
    if recipe is None:
        return {}
    return {"fp8_param_gather": fp8.param_gather, "reuse_grad_buf_for_mxfp8_param_ag": _reuses_buffer(recipe, fp8)}


def optimizer_fields(precision: str, fp8: Fp8Config) -> dict[str, Any]:
    """Return the fields of OptimizerConfig; empty without FP8."""
    recipe = PRECISIONS[precision].recipe
    if recipe is None:
        return {}
    return {"fp8_recipe": recipe.megatron_name, "reuse_grad_buf_for_mxfp8_param_ag": _reuses_buffer(recipe, fp8)}


def _reuses_buffer(recipe: Fp8Recipe, fp8: Fp8Config) -> bool:
    return fp8.param_gather and recipe.gathers_through_gradient_buffer
