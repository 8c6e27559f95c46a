"""The masked loss in a causal language model of transformers, without changes to the model's code."""

import functools
import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from acc_megatron.errors import ArgumentError
from acc_megatron.kernels.masked_linear_cross_entropy.op import masked_linear_cross_entropy
from acc_megatron.kernels.shared.argument_checks import IGNORED_TARGET


@dataclass
class _Call:
    """One call with labels: the shifted targets, and what the head computed from them."""

    targets: torch.Tensor
    loss_sum: torch.Tensor | None = None
    weight_sum: torch.Tensor | None = None


def apply_to(model: Any, *, memory_mode: str = "auto", implementation: str = "auto") -> None:
    """Make `model(..., labels=labels)` multiply only supervised tokens with the output layer.

    The loss is that of transformers' `ForCausalLMLoss`, including `num_items_in_batch` and `shift_labels`; other losses
    of the model, such as that of its router, are added as before. The `logits` of such an output are None. Calls
    without labels do not change. The loss is computed inside of the call of the output layer, where FSDP and ZeRO have
    gathered its weight.

    Args:
        model: a `PreTrainedModel` with an output layer without bias, whose forward passes the result of the output
            layer directly to `self.loss_function`.
        memory_mode: as in `masked_linear_cross_entropy`.
        implementation: as in `masked_linear_cross_entropy`.

    Raises ArgumentError if the output layer is not a linear layer without bias, and in a call if the model changes the
    logits before its loss.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or head.bias is not None:
        raise ArgumentError(
            f"the output layer of {type(model).__name__} is {head}; allowed: a torch.nn.Linear, no bias"
        )
    stock_forward, stock_loss = model.forward, model.loss_function
    signature = inspect.signature(stock_forward)
    calls: list[_Call] = []

    def masked_head(hidden: torch.Tensor) -> torch.Tensor:
        call = calls[-1]
        call.loss_sum, call.weight_sum = masked_linear_cross_entropy(
            hidden.contiguous(), head.weight, call.targets, memory_mode=memory_mode, implementation=implementation
        )
        return call.loss_sum

    def loss_function(
        logits: torch.Tensor, *args: Any, num_items_in_batch: torch.Tensor | int | None = None, **kwargs: Any
    ) -> torch.Tensor:
        if not calls:
            return stock_loss(logits, *args, num_items_in_batch=num_items_in_batch, **kwargs)
        call = calls[-1]
        if logits is not call.loss_sum:
            raise ArgumentError(
                f"{type(model).__name__} changes its logits before the loss; allowed: a model that passes the result "
                "of its output layer to loss_function"
            )
        count = call.weight_sum if num_items_in_batch is None else num_items_in_batch
        return logits / (count.to(logits.device) if isinstance(count, torch.Tensor) else count)

    @functools.wraps(stock_forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        named = signature.bind_partial(*args, **kwargs)
        labels = named.arguments.get("labels")
        if labels is None:
            return stock_forward(*args, **kwargs)
        calls.append(_Call(_targets(labels, named.kwargs)))
        # the instance may have a forward of its own, for example a hook of accelerate
        before = head.__dict__.get("forward")
        head.forward = masked_head
        try:
            output = stock_forward(*args, **kwargs)
        finally:
            calls.pop()
            del head.forward
            if before is not None:
                head.forward = before
        if isinstance(output, tuple):
            raise ArgumentError("return_dict is False, which has no place for absent logits; allowed: return_dict=True")
        return replace(output, logits=None)

    model.forward, model.loss_function = forward, loss_function


def _targets(labels: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
    """The target of every position, IGNORED_TARGET where there is none. Raises ArgumentError for an ignore_index."""
    if kwargs.get("ignore_index", IGNORED_TARGET) != IGNORED_TARGET:
        raise ArgumentError(f"ignore_index is {kwargs['ignore_index']}; allowed: {IGNORED_TARGET}")
    shifted = kwargs.get("shift_labels")
    if shifted is not None:
        return shifted.contiguous()
    return F.pad(labels, (0, 1), value=IGNORED_TARGET)[..., 1:].contiguous()
