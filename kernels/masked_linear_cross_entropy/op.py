"""The public function for cross entropy of a linear output layer, its argument checks and its choice of backend."""

import torch
import torch.distributed as dist

from acc_megatron.errors import ArgumentError
from acc_megatron.kernels.masked_linear_cross_entropy import reference
from acc_megatron.kernels.masked_linear_cross_entropy.autograd import Backend, Settings, masked_loss
from acc_megatron.kernels.shared.argument_checks import (
    FLOATS,
    check_choice,
    check_range,
    check_tensor,
    check_tokens,
    check_values,
)
from acc_megatron.kernels.shared.backend_choice import HIDDEN_MULTIPLE, IMPLEMENTATIONS, Choice, choose_backend
from acc_megatron.kernels.shared.kernel_context import autocast_tensors
from acc_megatron.kernels.shared.supervised_rows import num_shards, raise_on_every_rank

MEMORY_MODES = ("auto", "keep", "recompute")
# "auto" keeps exponentials up to this size: 3 passes over the weight instead of 4
KEEP_LIMIT_BYTES = 2 * 1024**3


def masked_linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    token_weights: torch.Tensor | None = None,
    *,
    group: dist.ProcessGroup | None = None,
    sequence_parallel: bool = False,
    main_grad: torch.Tensor | None = None,
    z_loss: float = 0.0,
    per_token: bool = False,
    memory_mode: str = "auto",
    implementation: str = "auto",
) -> tuple[torch.Tensor, ...]:
    """Compute `(loss_sum, weight_sum)`, sums over tokens.

    The loss of a token is its weight x (-log P(target) + z_loss x logsumexp^2).

    Sums are float32, or float64 for float64 arguments. The same inputs always give the same bits. Autocast casts hidden
    and weight as it does for `F.linear`.

    Args:
        hidden: `[tokens, hidden]` or with more leading dims, which targets and token_weights then have too; floating.
        weight: `[vocab / shards, hidden]`, same dtype as hidden.
        targets: `[tokens]` int64 or int32 over the full vocabulary; ignored where the token weight is 0.
        token_weights: `[tokens]`, 0 or larger; floating, integer or bool, without gradient. A rank may have no
            supervised token. By default 1, or 0 where the target is -100.
        group: the ranks with the vocabulary shards, in rank order. The sums cover the tokens of all ranks, are equal on
            all ranks, and gradients are those of this one loss.
        sequence_parallel: each rank of `group` passes different tokens; otherwise all pass the same tokens.
        main_grad: `[vocab / shards, hidden]` float32 or bfloat16 buffer to which the gradient of the weight is added,
            rounded once; autograd then gets no gradient for the weight.
        z_loss: coefficient of logsumexp^2 (PaLM, arXiv 2204.02311, section 5).
        per_token: also return log P(target) and the entropy in nats, `[tokens]`, 0 for unsupervised tokens, without
            gradient.
        memory_mode: "keep" stores the exponentials of the logits for the backward pass, "recompute" computes the logits
            again in windows of columns, "auto" chooses by their size. Both have the same accuracy.
        implementation: "triton", "torch", or "auto" to choose by device.

    Raises ArgumentError before any kernel starts. Under sequence parallelism, an invalid argument of one rank raises on
    every rank of the group.
    """
    hidden, weight = autocast_tensors(hidden, weight)
    try:
        targets_T, weights_T = _check(hidden, weight, targets, token_weights, main_grad)
        check_range("z_loss", z_loss, 0.0)
        check_choice("memory_mode", memory_mode, MEMORY_MODES)
        settings = Settings(
            backend=_backend(choose(hidden, weight, implementation, main_grad)),
            keep_limit_bytes={"auto": KEEP_LIMIT_BYTES, "keep": None, "recompute": -1}[memory_mode],
            main_grad=main_grad,
            z_loss=z_loss,
            per_token=per_token,
        )
        check_values(targets_T, weights_T, len(weight) * num_shards(group))
    except ArgumentError as error:
        raise_on_every_rank(error, group, sequence_parallel, hidden.device)
    loss_sum, weight_sum, *per_token_values = masked_loss(
        hidden.reshape(-1, hidden.shape[-1]),
        weight,
        targets_T,
        weights_T,
        group=group,
        sequence_parallel=sequence_parallel,
        settings=settings,
    )
    return loss_sum, weight_sum, *(values.reshape(targets.shape) for values in per_token_values)


def choose(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    implementation: str = "auto",
    main_grad: torch.Tensor | None = None,
) -> Choice:
    """The backend that would run for these arguments, and the reason. Raises ArgumentError like the op."""
    check_choice("implementation", implementation, IMPLEMENTATIONS)
    # hidden is copied when its rows are selected, and the copy is aligned
    descriptors = {"weight": weight, "main_grad": main_grad}
    return choose_backend(hidden, row_multiple=HIDDEN_MULTIPLE, requested=implementation, descriptors=descriptors)


def _backend(choice: Choice) -> Backend:
    if choice.name == "torch":
        return reference
    # triton is optional, so it is imported only after it is chosen
    from acc_megatron.kernels.masked_linear_cross_entropy import launch

    return launch


def _check(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    token_weights: torch.Tensor | None,
    main_grad: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Check the tensors, and return targets and weights as `[tokens]`."""
    device = hidden.device
    check_tensor("hidden", hidden, [None] * max(2, hidden.dim()), FLOATS, device)
    check_tensor("weight", weight, [None, hidden.shape[-1]], [hidden.dtype], device)
    check_range("the number of rows of weight", len(weight), 1)
    if main_grad is not None:
        check_tensor("main_grad", main_grad, list(weight.shape), [torch.float32, torch.bfloat16], device)
    return check_tokens(targets, token_weights, hidden.shape[:-1], device)
