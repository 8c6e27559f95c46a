"""The op on CPU: both memory plans, buffers, options, refusals; and importing it without Triton."""

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.distributed as dist
from gloo import run_on_ranks
from loss_problems import Answer, assert_no_worse, make

from acc_megatron.errors import ArgumentError
from acc_megatron.kernels.masked_linear_cross_entropy.op import choose, masked_linear_cross_entropy
from acc_megatron.kernels.vocab_parallel_cross_entropy.op import vocab_parallel_cross_entropy

CASES = {
    "one row": (1, 1, 211, 32),
    "primes, several windows": (101, 53, 17_011, 13),
    "none supervised": (19, 0, 64, 8),
    "all supervised": (31, 31, 127, 8),
}


@pytest.mark.parametrize("with_buffer", [False, True])
@pytest.mark.parametrize("plan", ["keep", "recompute"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_no_worse_than_plain_code_in_the_same_precision(
    name: str, dtype: torch.dtype, plan: str, with_buffer: bool
) -> None:
    problem = make(*CASES[name], dtype)
    hidden, weight = (x.clone().requires_grad_() for x in (problem.hidden, problem.weight))
    buffer = torch.ones(weight.shape) if with_buffer else None
    loss, weight_sum, log_probability, entropy = masked_linear_cross_entropy(
        hidden, weight, *problem[2:], z_loss=1e-3, per_token=True, plan=plan, main_grad=buffer
    )
    loss.backward()
    rows = problem.token_weights > 0
    assert hidden.grad is not None and weight_sum == problem.token_weights.sum()
    dweight = weight.grad if buffer is None else buffer - 1
    assert dweight is not None and (weight.grad is None) == with_buffer
    got = Answer(loss.detach(), hidden.grad, dweight, log_probability[rows], entropy[rows])
    assert_no_worse(got, problem, 1e-3)


def test_two_microbatches_add_into_one_buffer() -> None:
    problems = [make(20, 7, 50, 8, torch.float32, seed) for seed in (0, 1)]
    buffer = torch.zeros(50, 8)
    total = torch.zeros(50, 8)
    for problem in problems:
        for main_grad in (buffer, None):
            weight = problem.weight.clone().requires_grad_()
            loss, _ = masked_linear_cross_entropy(problem.hidden, weight, *problem[2:], main_grad=main_grad)
            loss.backward()
            total += 0 if weight.grad is None else weight.grad
    torch.testing.assert_close(buffer, total)


def test_the_kept_logits_serve_one_backward_only() -> None:
    problem = make(20, 7, 50, 8, torch.float32)
    weight = problem.weight.clone().requires_grad_()
    loss, _ = masked_linear_cross_entropy(problem.hidden, weight, *problem[2:], plan="keep")
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward ran twice"):
        loss.backward()


def test_given_logits_become_their_gradient_and_masked_rows_zero() -> None:
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.tensor([0, 1.0, 0, 0.5, 0, 0])
    targets = torch.arange(6)
    reference = logits.clone().requires_grad_()
    want = (torch.nn.functional.cross_entropy(reference, targets, reduction="none") * weights).sum()
    want.backward()
    given = logits.clone()
    loss, weight_sum = vocab_parallel_cross_entropy(given.requires_grad_(), targets, weights)
    loss.backward()
    assert weight_sum.item() == 1.5
    torch.testing.assert_close(loss.detach(), want.detach())
    torch.testing.assert_close(given.detach(), reference.grad)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "hidden's dimensions": ({"hidden": torch.zeros(4)}, r"hidden has shape \[4\]; allowed: \[any, any\]"),
    "weight's width": ({"weight": torch.zeros(9, 5)}, r"weight has shape \[9, 5\]; allowed: \[any, 8\]"),
    "dtypes differ": (
        {"weight": torch.zeros(9, 8).bfloat16()},
        "weight has dtype torch.bfloat16; allowed: torch.float32",
    ),
    "int32 targets": ({"targets": torch.zeros(4).int()}, "targets has dtype torch.int32; allowed: torch.int64"),
    "target too large": ({"targets": torch.tensor([0, 9, 0, 0])}, r"targets\[1\] is 9; allowed: 0 to 8"),
    "target negative": ({"targets": torch.tensor([0, 0, -100, 0])}, r"targets\[2\] is -100; allowed: 0 to 8"),
    "weight negative": (
        {"token_weights": torch.tensor([1.0, 1, 1, -0.5])},
        r"token_weights\[3\] is -0.5; allowed: finite, 0",
    ),
    "weight not a number": ({"token_weights": torch.tensor([1.0, float("nan"), 1, 1])}, r"token_weights\[1\] is nan"),
    "other device": ({"weight": torch.zeros(9, 8, device="meta")}, "weight is on meta; allowed: cpu"),
    "strided": ({"hidden": torch.zeros(8, 4).T}, r"hidden has strides \[1, 4\]; allowed: a contiguous tensor"),
    "half buffer": (
        {"main_grad": torch.zeros(9, 8).half()},
        "main_grad has dtype torch.float16; allowed: torch.float32",
    ),
    "buffer's shape": ({"main_grad": torch.zeros(8, 8)}, r"main_grad has shape \[8, 8\]; allowed: \[9, 8\]"),
    "z_loss": ({"z_loss": -1.0}, "z_loss is -1.0; allowed: finite, 0.0 to inf"),
    "plan": ({"plan": "best"}, "plan is 'best'; allowed: auto, keep, recompute"),
    "no GPU": ({"implementation": "triton"}, "implementation is 'triton', but .*; allowed here: auto, torch"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_refused_with_the_argument_its_value_and_the_allowed_range(name: str) -> None:
    change, message = REFUSALS[name]
    arguments: dict[str, Any] = {"hidden": torch.zeros(4, 8), "weight": torch.zeros(9, 8)}
    arguments |= {"targets": torch.zeros(4).long(), "token_weights": torch.ones(4)}
    with pytest.raises(ArgumentError, match=message):
        masked_linear_cross_entropy(**(arguments | change))


def test_a_target_without_weight_may_be_anything() -> None:
    targets, weights = torch.tensor([-100, 3, 10**9]), torch.tensor([0.0, 1.0, 0.0])
    loss, _ = masked_linear_cross_entropy(torch.zeros(3, 4), torch.zeros(8, 4), targets, weights)
    assert loss.item() == pytest.approx(2.0794415)


def _check_agreement(rank: int) -> None:
    targets = torch.tensor([0, 99 if rank == 1 else 1])
    with pytest.raises(ArgumentError, match=r"targets\[1\] is 99" if rank == 1 else "rank 1 of the group"):
        masked_linear_cross_entropy(
            torch.zeros(2, 4), torch.zeros(8, 4), targets, torch.ones(2), group=dist.group.WORLD, sequence_parallel=True
        )


@pytest.mark.distributed
def test_a_bad_argument_of_one_rank_stops_every_rank() -> None:
    run_on_ranks(_check_agreement, 2)


def test_the_choice_gives_its_reason() -> None:
    choice = choose(torch.zeros(2, 16))
    assert choice.name == "torch" and "cpu" in choice.reason


def test_the_ops_import_and_run_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, acc_megatron.kernels\n"
        "from acc_megatron.kernels.masked_linear_cross_entropy.op import masked_linear_cross_entropy as op\n"
        "import acc_megatron.kernels.vocab_parallel_cross_entropy.op\n"
        "op(torch.zeros(2, 4), torch.zeros(3, 4), torch.zeros(2).long(), torch.ones(2))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
