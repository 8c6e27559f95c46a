"""Random problems for the masked loss, and plain torch code in any precision to compare implementations with."""

from typing import NamedTuple

import torch
import torch.nn.functional as F


class Problem(NamedTuple):
    """hidden [tokens, hidden], weight [vocab, hidden], targets and token_weights [tokens]."""

    hidden: torch.Tensor
    weight: torch.Tensor
    targets: torch.Tensor
    token_weights: torch.Tensor


class Answer(NamedTuple):
    """The loss sum and its gradients, and the log probability and entropy of the supervised tokens."""

    loss: torch.Tensor
    hidden: torch.Tensor
    weight: torch.Tensor
    log_probability: torch.Tensor
    entropy: torch.Tensor


def make(
    tokens: int,
    supervised: int,
    vocab: int,
    hidden: int,
    dtype: torch.dtype,
    seed: int = 0,
    weight_scale: float = 0.1,
) -> Problem:
    """Random supervised rows with random weights; the targets of the other rows are -100."""
    generator = torch.Generator().manual_seed(seed)
    token_weights = torch.zeros(tokens)
    rows = torch.randperm(tokens, generator=generator)[:supervised]
    token_weights[rows] = torch.rand(supervised, generator=generator) + 0.1
    targets = torch.randint(0, vocab, (tokens,), generator=generator)
    return Problem(
        torch.randn(tokens, hidden, generator=generator).to(dtype),
        (torch.randn(vocab, hidden, generator=generator) * weight_scale).to(dtype),
        torch.where(token_weights > 0, targets, -100),
        token_weights,
    )


def plain(problem: Problem, dtype: torch.dtype, z_loss: float) -> Answer:
    """Linear, log-softmax and autograd on the supervised rows, with arguments of `dtype`."""
    rows = problem.token_weights.nonzero().squeeze(1)
    hidden, weight = (x.to(dtype, copy=True).requires_grad_() for x in (problem.hidden, problem.weight))
    logits = F.linear(hidden[rows], weight)
    logits = logits if dtype == torch.float64 else logits.float()
    log_softmax = logits.log_softmax(-1)
    log_probability = log_softmax.gather(1, problem.targets[rows, None]).squeeze(1)
    loss = ((z_loss * logits.logsumexp(-1) ** 2 - log_probability) * problem.token_weights[rows].to(logits.dtype)).sum()
    loss.backward()
    entropy = -(log_softmax.exp() * log_softmax).sum(-1)
    assert hidden.grad is not None and weight.grad is not None
    return Answer(loss.detach(), hidden.grad, weight.grad, log_probability.detach(), entropy.detach())


def error(got: torch.Tensor, truth: torch.Tensor) -> float:
    """Error relative to the norm of `truth`, or absolute if that is zero."""
    scale = truth.norm().item() or 1.0
    return (got.double() - truth).norm().item() / scale


def assert_no_worse(got: Answer, problem: Problem, z_loss: float) -> None:
    """The error against float64 is at most that of plain torch in the dtype of the problem, plus float32 roundings."""
    truth, ours = plain(problem, torch.float64, z_loss), plain(problem, problem.hidden.dtype, z_loss)
    for name in Answer._fields:
        want = getattr(truth, name)
        allowed = 1.1 * error(getattr(ours, name), want) + 1e-6
        assert error(getattr(got, name), want) <= allowed, f"{name}: {error(getattr(got, name), want)} > {allowed}"


# bounds of docs/kernels.md for bfloat16 arguments, in both memory modes: absolute, and relative to the norm. The
# gradient of hidden states is itself rounded to bfloat16.
LOG_PROBABILITY_BOUND = 5e-6
GRADIENT_BOUNDS = {"hidden": 3e-3, "weight": 2e-3}


def make_trained(hidden: int = 256) -> Problem:
    """A bfloat16 problem with logits of standard deviation 3; every second target is the most likely token."""
    problem = make(64, 48, 1009, hidden, torch.bfloat16, weight_scale=3 * hidden**-0.5)
    best = F.linear(problem.hidden.float(), problem.weight.float()).argmax(1)
    is_likely = (problem.token_weights > 0) & (torch.arange(64) % 2 == 0)
    return problem._replace(targets=torch.where(is_likely, best, problem.targets))


def assert_within_bounds(got: Answer, problem: Problem, z_loss: float) -> None:
    """Log probabilities and gradients are within the stated bounds of float64."""
    truth = plain(problem, torch.float64, z_loss)
    worst = (got.log_probability.double() - truth.log_probability).abs().max().item()
    assert worst <= LOG_PROBABILITY_BOUND, f"log probability: {worst}"
    for name, bound in GRADIENT_BOUNDS.items():
        value = error(getattr(got, name), getattr(truth, name))
        assert value <= bound, f"{name}: {value}"
