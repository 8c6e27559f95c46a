"""Cross entropy of a linear head over supervised rows only: the public function, its checks and its choices."""

import torch
import torch.distributed as dist

from acc_megatron.kernels.checks import FLOATS, WEIGHT_DTYPES, check_choice, check_range, check_tensor, value_problem
from acc_megatron.kernels.choose import HIDDEN_MULTIPLE, IMPLEMENTATIONS, Choice, choose_implementation
from acc_megatron.kernels.masked_linear_cross_entropy import reference
from acc_megatron.kernels.masked_linear_cross_entropy.head import HeadSettings, Stages, masked_head
from acc_megatron.kernels.rows import shards

PLANS = ("auto", "keep", "recompute")
# compact logits up to this size are kept: 3 passes over the weight instead of 4
KEEP_LIMIT_BYTES = 2 * 1024**3


def masked_linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    token_weights: torch.Tensor,
    *,
    group: dist.ProcessGroup | None = None,
    sequence_parallel: bool = False,
    main_grad: torch.Tensor | None = None,
    z_loss: float = 0.0,
    per_token: bool = False,
    plan: str = "auto",
    implementation: str = "auto",
) -> tuple[torch.Tensor, ...]:
    """`(loss_sum, weight_sum)`: sums over tokens of weight x (-log P(target) + z_loss x logsumexp^2), and of weight.

    hidden `[tokens, hidden]` and weight `[vocab / shards, hidden]` of one floating dtype; targets `[tokens]` int64
    over the whole vocabulary, looked at only where the weight is not 0; token_weights `[tokens]` >= 0, floating,
    integer or bool. `group` holds the vocabulary shards in rank order. With `sequence_parallel` each of its ranks
    brings different tokens, else all bring the same; the sums are over the tokens of all ranks and equal on each, and
    gradients are those of that one loss. A rank without supervised rows is a normal case.

    `main_grad` `[vocab / shards, hidden]` float32 receives the weight's gradient by addition, and autograd none.
    `per_token` adds log P(target) and entropy in nats, `[tokens]`, 0 where unsupervised, not differentiable.
    `plan`: "keep" compact logits for backward, "recompute" them in windows of columns, or "auto" by their size.
    `implementation`: "triton", "torch" or "auto" by device. Sums are float32, float64 for float64 arguments.

    The same inputs give the same bits. Raises ArgumentError before any kernel starts, on every rank of the group.
    """
    _check(hidden, weight, targets, token_weights, main_grad)
    check_range("z_loss", z_loss, 0.0)
    check_choice("plan", plan, PLANS)
    choice = choose(hidden, implementation)
    settings = HeadSettings(
        stages=_stages(choice),
        keep_limit_bytes={"auto": KEEP_LIMIT_BYTES, "keep": None, "recompute": -1}[plan],
        main_grad=main_grad,
        z_loss=z_loss,
        per_token=per_token,
    )
    problem = value_problem(targets, token_weights, len(weight) * shards(group))
    return masked_head(
        hidden,
        weight,
        targets,
        token_weights,
        group=group,
        sequence_parallel=sequence_parallel,
        settings=settings,
        problem=problem,
    )


def choose(hidden: torch.Tensor, implementation: str = "auto") -> Choice:
    """What would run for hidden `[tokens, hidden]`, and the reason. Raises ArgumentError as the op does."""
    check_choice("implementation", implementation, IMPLEMENTATIONS)
    return choose_implementation(hidden, row_multiple=HIDDEN_MULTIPLE, requested=implementation)


def _stages(choice: Choice) -> Stages:
    if choice.name == "torch":
        return reference
    # triton is optional: nothing imports it before it is chosen
    from acc_megatron.kernels.masked_linear_cross_entropy import launch

    return launch


def _check(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    token_weights: torch.Tensor,
    main_grad: torch.Tensor | None,
) -> None:
    device = hidden.device
    check_tensor("hidden", hidden, [None, None], FLOATS, device)
    check_tensor("weight", weight, [None, hidden.shape[1]], [hidden.dtype], device)
    check_range("weight's number of rows", len(weight), 1)
    check_tensor("targets", targets, [len(hidden)], [torch.int64], device)
    check_tensor("token_weights", token_weights, [len(hidden)], WEIGHT_DTYPES, device)
    if main_grad is not None:
        check_tensor("main_grad", main_grad, list(weight.shape), [torch.float32], device)
