"""The torch reference against log-softmax in float64, on one rank and on vocabulary shards of several ranks."""

import pytest
import torch
import torch.distributed as dist
from support.gloo import run_on_ranks

from acc_megatron.kernels.masked_linear_cross_entropy.reference import masked_linear_cross_entropy

CASES = {
    "few of many": (36, 11, 101, [3, 4, 34]),
    "one row, supervised": (1, 5, 7, [0]),
    "all rows": (13, 8, 64, range(13)),
    "none": (9, 8, 33, []),
    "last only": (60, 16, 211, [59]),
}


def problem(tokens: int, hidden: int, vocab: int, rows: object, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(tokens, hidden, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocab, hidden, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, vocab, (tokens,), generator=generator)
    weights = torch.zeros(tokens, dtype=torch.float64)
    weights[list(rows)] = torch.rand(len(list(rows)), generator=generator, dtype=torch.float64) + 0.5  # type: ignore[call-overload]
    return states, weight, targets, weights


def plain(
    states: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Loss and both gradients by log-softmax and autograd."""
    states, weight = states.clone().requires_grad_(), weight.clone().requires_grad_()
    log_probability = (states @ weight.T).log_softmax(-1)
    loss = -(log_probability.gather(1, targets[:, None])[:, 0] * weights).sum()
    loss.backward()
    return loss.detach(), states.grad, weight.grad


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_equal_those_of_log_softmax(name: str) -> None:
    states, weight, targets, weights = problem(*CASES[name])
    loss, states_grad, weight_grad = plain(states, weight, targets, weights)
    x, w = states.float().requires_grad_(), weight.float().requires_grad_()
    loss_sum, weight_sum = masked_linear_cross_entropy(x, w, targets, weights)
    (3.0 * loss_sum).backward()
    assert loss_sum.item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    assert weight_sum.item() == pytest.approx(weights.sum().item(), rel=1e-6)
    torch.testing.assert_close(x.grad, 3 * states_grad.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(w.grad, 3 * weight_grad.float(), rtol=1e-4, atol=1e-5)


def test_unsupervised_rows_get_zero_gradient_even_if_they_are_not_finite() -> None:
    states, weight, targets, weights = problem(*CASES["few of many"])
    x = states.float()
    x[weights == 0] = float("nan")
    x.requires_grad_()
    loss_sum, _ = masked_linear_cross_entropy(x, weight.float(), targets, weights)
    loss_sum.backward()
    assert torch.isfinite(loss_sum)
    assert (x.grad[weights == 0] == 0).all() and torch.isfinite(x.grad).all()


def test_logits_of_a_thousand_do_not_overflow() -> None:
    x = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    w = torch.tensor([[1.0], [-1.0]])
    loss_sum, _ = masked_linear_cross_entropy(x, w, torch.tensor([0, 0]), torch.ones(2))
    loss_sum.backward()
    assert loss_sum.item() == pytest.approx(2000.0)
    torch.testing.assert_close(x.grad, torch.tensor([[0.0], [-2.0]]))


def _check_shards(rank: int, sequence_parallel: bool, name: str) -> None:
    world = dist.get_world_size()
    tokens, hidden, vocab, rows = CASES[name]
    states, weight, targets, weights = problem(tokens - tokens % world or world, hidden, vocab - vocab % world, rows)
    loss, states_grad, weight_grad = plain(states, weight, targets % len(weight), weights)
    shard = weight.chunk(world)[rank].float().requires_grad_()
    local = slice(None)
    if sequence_parallel:
        size = len(states) // world
        local = slice(rank * size, (rank + 1) * size)
    x = states[local].float().requires_grad_()
    loss_sum, weight_sum = masked_linear_cross_entropy(
        x,
        shard,
        (targets % len(weight))[local],
        weights[local],
        group=dist.group.WORLD,
        sequence_parallel=sequence_parallel,
    )
    loss_sum.backward()
    assert loss_sum.item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    assert weight_sum.item() == pytest.approx(weights.sum().item(), rel=1e-6)
    torch.testing.assert_close(x.grad, states_grad[local].float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shard.grad, weight_grad.chunk(world)[rank].float(), rtol=1e-4, atol=1e-5)


def _check_all_shards(rank: int) -> None:
    for name in ("few of many", "none", "last only"):
        for sequence_parallel in (False, True):
            _check_shards(rank, sequence_parallel, name)


@pytest.mark.distributed
@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_vocabulary_shards_give_the_loss_and_gradients_of_the_full_vocabulary(world: int) -> None:
    run_on_ranks(_check_all_shards, world)
