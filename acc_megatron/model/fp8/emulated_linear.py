"""Megatron's linear layers with emulated FP8: both operands of every product, forward and backward, are quantised.

The products run in float32, the precision in which tensor cores accumulate. Parameters, activations and communication
are unchanged. The history of the delayed recipe is updated once per step over all microbatches (in Transformer Engine
once per microbatch), so that it is the same for every layout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import finalize_model_grads
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)

from acc_megatron.config import Fp8Config
from acc_megatron.model.fp8.recipe import Format, Fp8Recipe, TensorRole
from acc_megatron.model.fp8.scaling import FORMATS, tensor_scale
from acc_megatron.model.precision import PRECISIONS, fp8_format

ROLES: tuple[TensorRole, ...] = ("input", "weight", "gradient")


@dataclass(frozen=True, slots=True)
class Emulation:
    """Which recipe is emulated, and in which layers."""

    recipe: Fp8Recipe
    format: Format
    history_steps: int = 1024
    amax_choice: str = "max"
    bf16_layers_at_start: int = 0
    bf16_layers_at_end: int = 0

    def dtype(self, role: TensorRole) -> torch.dtype:
        """Return the FP8 dtype of an operand."""
        return FORMATS[self.format]["backward" if role == "gradient" else "forward"]

    def covers(self, layer: int, num_layers: int) -> bool:
        """Return whether a layer is in FP8; `layer` is its number in the complete model, from 0."""
        return self.bf16_layers_at_start <= layer < num_layers - self.bf16_layers_at_end


def emulation(precision: str, fp8: Fp8Config) -> Emulation | None:
    """Return what must be emulated for a precision; None if it is not FP8."""
    recipe = PRECISIONS[precision].recipe
    if recipe is None:
        return None
    return Emulation(
        recipe=recipe,
        format=fp8_format(recipe, fp8),
        history_steps=fp8.amax_history_steps,
        amax_choice=fp8.amax_choice,
        bf16_layers_at_start=fp8.bf16_layers_at_start,
        bf16_layers_at_end=fp8.bf16_layers_at_end,
    )


class Operands:
    """Quantises the operands of one linear layer; has scales and a history of largest values if the recipe needs them.

    `history [history_steps, 3]` float32, newest first, and `scale [3]`, both in the order of ROLES.
    """

    def __init__(self, emulated: Emulation) -> None:
        self.emulated = emulated
        self.has_history = emulated.recipe.has_history
        self.scale = torch.ones(len(ROLES))
        self.seen = torch.zeros(len(ROLES))  # largest absolute values since the last update of the history
        self.history = torch.zeros(emulated.history_steps if self.has_history else 0, len(ROLES))

    def __call__(self, matrix: torch.Tensor, role: TensorRole, *, along: int) -> torch.Tensor:
        """Return the quantised operand in float32; `along` is the dim that the product sums over."""
        number = ROLES.index(role)
        if self.has_history and matrix.numel():
            self.seen[number] = torch.maximum(self.seen[number], matrix.detach().abs().amax().float())
        emulated = self.emulated
        return emulated.recipe.quantise(
            matrix, role, emulated.dtype(role), along=along, scale=self.scale[number] if self.has_history else None
        )

    def update_history(self, amax: torch.Tensor) -> None:
        """Add this step's largest values `[3]` to the history and compute new scales from it."""
        self.history = torch.cat([amax[None], self.history[:-1]])
        chosen = self.history.amax(0) if self.emulated.amax_choice == "max" else amax
        scales = [
            tensor_scale(chosen[number], self.emulated.dtype(role), self.scale[number])
            for number, role in enumerate(ROLES)
        ]
        self.scale, self.seen = torch.stack(scales), torch.zeros(len(ROLES))


class _Product(torch.autograd.Function):
    """`x [..., K]` times the transpose of `weight [N, K]`; `[..., N]` in x's dtype."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, operands: Operands) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.operands = operands
        rows = operands(x.flatten(0, -2), "input", along=1)
        product = rows @ operands(weight, "weight", along=1).T
        return product.to(x.dtype).view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        x, weight = ctx.saved_tensors
        operands, rows = ctx.operands, gradient.flatten(0, -2)
        x_gradient = operands(rows, "gradient", along=1) @ operands(weight, "weight", along=0)
        if not ctx.needs_input_grad[1]:  # frozen
            return x_gradient.to(x.dtype).view_as(x), None, None
        weight_gradient = operands(rows, "gradient", along=0).T @ operands(x.flatten(0, -2), "input", along=0)
        return x_gradient.to(x.dtype).view_as(x), weight_gradient.to(weight.dtype), None


def product(x: torch.Tensor, weight: torch.Tensor, operands: Operands) -> torch.Tensor:
    """Return `x [..., K]` times the transpose of `weight [N, K]` with FP8 operands, forward and backward."""
    return _Product.apply(x, weight, operands)


class _Emulated:
    """What both layers share: the product, and the history in checkpoints."""

    operands: Operands

    def _forward_impl(
        self,
        input: torch.Tensor,
        weight: torch.Tensor,
        *,
        allreduce_dgrad: bool,
        sequence_parallel: bool,
        tp_group: Any,
        **_: Any,
    ) -> torch.Tensor:
        if sequence_parallel:
            input = gather_from_sequence_parallel_region(input, group=tp_group)
        elif allreduce_dgrad:
            input = copy_to_tensor_model_parallel_region(input, group=tp_group)
        return product(input, weight, self.operands)

    def get_extra_state(self) -> torch.Tensor | None:
        operands = self.operands
        return torch.cat([operands.scale[None], operands.history]) if operands.has_history else None

    def set_extra_state(self, state: Any) -> None:
        """Restore the history; what another spec or recipe saved is ignored, and the history starts empty."""
        operands = self.operands
        if isinstance(state, torch.Tensor) and state.dtype == torch.float32 and operands.has_history:
            saved, steps = state[1:], len(operands.history)
            operands.scale = state[0].clone()
            operands.history = torch.cat([saved, torch.zeros(steps, len(ROLES))])[:steps].clone()


class EmulatedColumnParallelLinear(_Emulated, ColumnParallelLinear):
    """ColumnParallelLinear with emulated FP8."""

    def __init__(self, *args: Any, emulated: Emulation, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.operands = Operands(emulated)


class EmulatedRowParallelLinear(_Emulated, RowParallelLinear):
    """RowParallelLinear with emulated FP8."""

    def __init__(self, *args: Any, emulated: Emulation, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.operands = Operands(emulated)


@torch.no_grad()
def update_histories(models: Sequence[torch.nn.Module]) -> None:
    """Update all histories after a step's last microbatch, over all ranks that share a layer's weights; collective.

    As in Transformer Engine, dense layers are reduced over the tensor, context and data axes, and experts over their
    replicas.
    """
    layers = [m for model in models for m in model.modules() if isinstance(m, _Emulated) and m.operands.has_history]
    groups = {
        False: parallel_state.get_amax_reduction_group(with_context_parallel=True),
        True: parallel_state.get_expert_data_parallel_group(),
    }
    for is_expert, group in groups.items():
        operands = [layer.operands for layer in layers if layer.is_expert == is_expert]
        if operands:
            amax = torch.stack([each.seen for each in operands])
            dist.all_reduce(amax, op=dist.ReduceOp.MAX, group=group)
            for each, values in zip(operands, amax, strict=True):
                each.update_history(values)


def finalize_gradients(models: list[torch.nn.Module], *args: Any, **kwargs: Any) -> None:
    """Run Megatron's `finalize_model_grads`, then update the histories."""
    finalize_model_grads(models, *args, **kwargs)
    update_histories(models)
