"""Random problems of the masked loss, and the plain code, in any precision, that implementations are held to."""

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
    """Loss sum and its gradients; log probability and entropy of supervised tokens."""

    loss: torch.Tensor
    hidden: torch.Tensor
    weight: torch.Tensor
    log_probability: torch.Tensor
    entropy: torch.Tensor


def make(tokens: int, supervised: int, vocab: int, hidden: int, dtype: torch.dtype, seed: int = 0) -> Problem:
    """Supervised rows at random places with random weights; the other targets are -100, as data sets have them."""
    generator = torch.Generator().manual_seed(seed)
    token_weights = torch.zeros(tokens)
    rows = torch.randperm(tokens, generator=generator)[:supervised]
    token_weights[rows] = torch.rand(supervised, generator=generator) + 0.1
    targets = torch.randint(0, vocab, (tokens,), generator=generator)
    return Problem(
        torch.randn(tokens, hidden, generator=generator).to(dtype),
        (torch.randn(vocab, hidden, generator=generator) * 0.1).to(dtype),
        torch.where(token_weights > 0, targets, -100),
        token_weights,
    )


def plain(problem: Problem, dtype: torch.dtype, z_loss: float) -> Answer:
    """Textbook code on the supervised rows with arguments of `dtype`: linear, float, log-softmax, autograd."""
    rows = problem.token_weights.nonzero().squeeze(1)
    hidden, weight = (x.to(dtype).requires_grad_() for x in (problem.hidden, problem.weight))
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
    """Relative, by the norm of the whole; absolute where the truth is zero."""
    scale = truth.norm().item() or 1.0
    return (got.double() - truth).norm().item() / scale


def assert_no_worse(got: Answer, problem: Problem, z_loss: float) -> None:
    """Against float64 no worse than plain code in the problem's precision; a few float32 roundings are allowed."""
    truth, ours = plain(problem, torch.float64, z_loss), plain(problem, problem.hidden.dtype, z_loss)
    for name in Answer._fields:
        want = getattr(truth, name)
        allowed = 1.1 * error(getattr(ours, name), want) + 1e-6
        assert error(getattr(got, name), want) <= allowed, f"{name}: {error(getattr(got, name), want)} > {allowed}"
