"""The kernels over given logits: as exact as plain torch, in place, and unsupervised rows are never read."""

import pytest
import torch

from acc_megatron.kernels.vocab_parallel_cross_entropy import launch
from acc_megatron.kernels.vocab_parallel_cross_entropy.op import vocab_parallel_cross_entropy

CASES = {
    "one row": (1, 1, 1000, torch.bfloat16),
    "primes": (31, 7, 1021, torch.float32),
    "none supervised": (9, 0, 33, torch.float32),
    "all supervised, half": (13, 13, 257, torch.float16),
    "several blocks of columns": (9, 4, 18992, torch.bfloat16),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_in_place_gradient_are_as_exact_as_plain_torch(name: str) -> None:
    tokens, supervised, vocab, dtype = CASES[name]
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(tokens, vocab, generator=generator)).to(dtype)
    weights = torch.zeros(tokens)
    weights[torch.randperm(tokens, generator=generator)[:supervised]] = 1.5
    targets = torch.randint(0, vocab, (tokens,), generator=generator)
    rows = weights > 0
    wide = logits[rows].double().requires_grad_()
    loss = (
        -wide.log_softmax(-1).gather(1, targets[rows, None]).squeeze(1) + 1e-3 * wide.logsumexp(-1) ** 2
    ).sum() * 1.5
    loss.backward()
    assert wide.grad is not None
    entropy = torch.distributions.Categorical(logits=wide.detach(), validate_args=False).entropy()
    given = logits.clone()
    given[~rows] = float("nan")
    variable = given.detach().requires_grad_()
    loss_sum, weight_sum, log_probability, own_entropy = vocab_parallel_cross_entropy(
        variable, targets, weights, z_loss=1e-3, per_token=True, implementation="triton"
    )
    loss_sum.backward()
    torch.testing.assert_close(loss_sum.double(), loss.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(own_entropy[rows].double(), entropy, rtol=1e-5, atol=1e-6)
    assert weight_sum == weights.sum() and (log_probability[~rows] == 0).all()
    assert (given[~rows] == 0).all()
    # one rounding to the dtype of the logits, in addition to float32
    rounded = wide.grad.to(dtype).double()
    allowed = 1.1 * (rounded - wide.grad).norm() + 1e-6 * wide.grad.norm()
    assert (given[rows].double() - wide.grad).norm() <= allowed
    assert variable.grad is not None and torch.equal(variable.grad, given)


def test_a_block_of_minus_infinity_gives_the_statistics_of_torch() -> None:
    logits = torch.randn(3, 20000, generator=torch.Generator().manual_seed(0))
    # complete blocks of columns: the first, the last, and all
    logits[0, :8192] = logits[1, 16384:] = logits[2] = float("-inf")
    got = launch.row_statistics(logits, torch.arange(3), torch.tensor([9000, 0, 0]), True)
    log_sum_exp = got.maximum + got.sum_exp.log()
    torch.testing.assert_close(log_sum_exp.double(), logits.double().logsumexp(1), rtol=1e-6, atol=1e-6)


def test_the_same_inputs_always_give_the_same_bits() -> None:
    logits = torch.randn(5, 20000, generator=torch.Generator().manual_seed(0))
    arguments = (logits, torch.arange(5), torch.arange(5) * 4000, True)
    first = launch.row_statistics(*arguments)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, launch.row_statistics(*arguments), strict=True))
