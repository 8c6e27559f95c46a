"""The ops on CPU: memory modes, buffers, options and errors, and their import without Triton."""

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.distributed as dist
from support.gloo import run_on_ranks
from support.loss_problems import Answer, Problem, assert_no_worse, assert_within_bounds, make, make_trained

from acc_megatron.errors import ArgumentError
from acc_megatron.kernels.masked_linear_cross_entropy import reference
from acc_megatron.kernels.masked_linear_cross_entropy.op import choose, masked_linear_cross_entropy
from acc_megatron.kernels.vocab_parallel_cross_entropy.op import vocab_parallel_cross_entropy

CASES = {
    "one row": (1, 1, 211, 32),
    "primes, several windows": (101, 53, 17_011, 13),
    "none supervised": (19, 0, 64, 8),
    "all supervised": (31, 31, 127, 8),
}


def run(problem: Problem, memory_mode: str, with_buffer: bool) -> Answer:
    hidden, weight = (x.clone().requires_grad_() for x in (problem.hidden, problem.weight))
    buffer = torch.ones(weight.shape) if with_buffer else None
    loss, weight_sum, log_probability, entropy = masked_linear_cross_entropy(
        hidden, weight, *problem[2:], z_loss=1e-3, per_token=True, memory_mode=memory_mode, main_grad=buffer
    )
    loss.backward()
    rows = problem.token_weights > 0
    torch.testing.assert_close(weight_sum, problem.token_weights.sum())
    assert hidden.grad is not None
    dweight = weight.grad if buffer is None else buffer - 1
    assert dweight is not None and (weight.grad is None) == with_buffer
    return Answer(loss.detach(), hidden.grad, dweight, log_probability[rows], entropy[rows])


@pytest.mark.parametrize("with_buffer", [False, True])
@pytest.mark.parametrize("memory_mode", ["keep", "recompute"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_results_are_as_exact_as_plain_torch_in_the_same_precision(
    name: str, dtype: torch.dtype, memory_mode: str, with_buffer: bool
) -> None:
    problem = make(*CASES[name], dtype)
    assert_no_worse(run(problem, memory_mode, with_buffer), problem, 1e-3)


@pytest.mark.parametrize("memory_mode", ["keep", "recompute"])
def test_both_memory_modes_agree_with_float64_to_the_same_bounds(memory_mode: str) -> None:
    problem = make_trained()
    assert_within_bounds(run(problem, memory_mode, with_buffer=True), problem, 1e-3)


def test_leading_dims_int32_targets_and_default_weights_are_accepted() -> None:
    hidden, weight = torch.randn(2, 3, 8), torch.randn(11, 8)
    targets = torch.tensor([[1, -100, 10], [-100, -100, 0]], dtype=torch.int32)
    logits = (hidden @ weight.T).double()
    want = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), reduction="none")
    for operation, arguments in (
        (masked_linear_cross_entropy, (hidden, weight)),
        (vocab_parallel_cross_entropy, (logits.float(),)),
    ):
        loss, count, log_probability, _ = operation(*arguments, targets, per_token=True)
        assert count == 3 and loss.item() == pytest.approx(want.sum().item())
        torch.testing.assert_close(log_probability.double(), -want.reshape(2, 3), rtol=1e-5, atol=1e-5)


def test_autocast_casts_the_arguments_only() -> None:
    problem = make_trained()
    narrow = run(problem, "keep", with_buffer=False)
    with torch.autocast("cpu", torch.bfloat16):
        wide = problem._replace(hidden=problem.hidden.float(), weight=problem.weight.float())
        cast = run(wide, "keep", with_buffer=False)
    assert cast.weight.dtype == torch.float32
    for got, want in zip(cast, narrow, strict=True):
        assert torch.equal(got, want.to(got.dtype))


@pytest.mark.parametrize("blocked", [slice(0, 20), slice(20, 40)])
def test_a_shard_of_minus_infinity_gives_the_result_of_torch(blocked: slice) -> None:
    run_on_ranks(_check_blocked_shard, 2, blocked)


def _check_blocked_shard(rank: int, blocked: slice) -> None:
    logits = torch.randn(4, 40, generator=torch.Generator().manual_seed(0))
    logits[:, blocked] = float("-inf")
    targets = (torch.arange(4) + blocked.stop) % 40
    reference = logits.double().requires_grad_()
    want = torch.nn.functional.cross_entropy(reference, targets, reduction="sum")
    want.backward()
    shard = logits.chunk(2, 1)[rank].contiguous().requires_grad_()
    loss, *_ = vocab_parallel_cross_entropy(shard, targets, group=dist.group.WORLD, per_token=True)
    loss.backward()
    torch.testing.assert_close(loss.double(), want.detach())
    torch.testing.assert_close(shard.grad.double(), reference.grad.chunk(2, 1)[rank], rtol=1e-5, atol=1e-6)


def test_two_microbatches_add_their_gradients_to_one_buffer() -> None:
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


def test_kept_logits_allow_only_one_backward_pass() -> None:
    problem = make(20, 7, 50, 8, torch.float32)
    weight = problem.weight.clone().requires_grad_()
    loss, _ = masked_linear_cross_entropy(problem.hidden, weight, *problem[2:], memory_mode="keep")
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward ran twice"):
        loss.backward()


@pytest.mark.parametrize("memory_mode", ["auto", "keep"])
def test_without_a_backward_pass_no_exponentials_are_kept(memory_mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    statistics = reference.head_statistics

    def recorded(*args: Any, keep: bool, **options: Any) -> Any:
        kept.append(keep)
        return statistics(*args, keep=keep, **options)

    monkeypatch.setattr(reference, "head_statistics", recorded)
    problem = make(20, 7, 50, 8, torch.float32)
    weight = problem.weight.clone().requires_grad_()
    for needed in (weight, problem.weight):
        masked_linear_cross_entropy(problem.hidden, needed, *problem[2:], memory_mode=memory_mode)
    with torch.no_grad():
        masked_linear_cross_entropy(problem.hidden, weight, *problem[2:], memory_mode=memory_mode)
    assert kept == [True, False, False]


def test_given_logits_are_overwritten_with_their_gradient_and_masked_rows_with_zero() -> None:
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


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "hidden's dimensions": ({"hidden": torch.zeros(4)}, r"hidden has shape \[4\]; allowed: \[any, any\]"),
    "weight's width": ({"weight": torch.zeros(9, 5)}, r"weight has shape \[9, 5\]; allowed: \[any, 8\]"),
    "dtypes differ": (
        {"weight": torch.zeros(9, 8).bfloat16()},
        "weight has dtype torch.bfloat16; allowed: torch.float32",
    ),
    "float targets": (
        {"targets": torch.zeros(4)},
        "targets has dtype torch.float32; allowed: torch.int64, torch.int32",
    ),
    "differentiable weights": (
        {"token_weights": torch.ones(4, requires_grad=True)},
        r"token_weights requires a gradient, .*; allowed: token_weights.detach\(\)",
    ),
    "target too large": ({"targets": torch.tensor([0, 9, 0, 0])}, r"targets\[1\] is 9; allowed: 0 to 8"),
    "target negative": ({"targets": torch.tensor([0, 0, -100, 0])}, r"targets\[2\] is -100; allowed: 0 to 8"),
    "weight negative": (
        {"token_weights": torch.tensor([1.0, 1, 1, -0.5])},
        r"token_weights\[3\] is -0.5; allowed: a finite number, 0 or larger",
    ),
    "weight not a number": ({"token_weights": torch.tensor([1.0, float("nan"), 1, 1])}, r"token_weights\[1\] is nan"),
    "other device": ({"weight": torch.zeros(9, 8, device="meta")}, "weight is on meta; allowed: cpu"),
    "strided": (
        {"hidden": torch.zeros(8, 4).T},
        r"hidden is not contiguous \(strides \[1, 4\]\); allowed: a contiguous tensor",
    ),
    "half buffer": (
        {"main_grad": torch.zeros(9, 8).half()},
        "main_grad has dtype torch.float16; allowed: torch.float32",
    ),
    "buffer's shape": ({"main_grad": torch.zeros(8, 8)}, r"main_grad has shape \[8, 8\]; allowed: \[9, 8\]"),
    "z_loss": ({"z_loss": -1.0}, "z_loss is -1.0; allowed: a finite number from 0.0 to inf"),
    "memory mode": ({"memory_mode": "best"}, "memory_mode is 'best'; allowed: auto, keep, recompute"),
    "no GPU": ({"implementation": "triton"}, "implementation is 'triton', but .*; allowed here: auto, torch"),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_argument_is_named_with_its_value_and_the_allowed_range(name: str) -> None:
    change, message = INVALID[name]
    arguments: dict[str, Any] = {"hidden": torch.zeros(4, 8), "weight": torch.zeros(9, 8)}
    arguments |= {"targets": torch.zeros(4).long(), "token_weights": torch.ones(4)}
    with pytest.raises(ArgumentError, match=message):
        masked_linear_cross_entropy(**(arguments | change))


def test_a_target_with_weight_zero_may_have_any_value() -> None:
    targets, weights = torch.tensor([-100, 3, 10**9]), torch.tensor([0.0, 1.0, 0.0])
    loss, _ = masked_linear_cross_entropy(torch.zeros(3, 4), torch.zeros(8, 4), targets, weights)
    assert loss.item() == pytest.approx(2.0794415)


def _check_error_on_both_ranks(rank: int) -> None:
    # shapes, dtypes, layout, options and values
    for name in ("weight's width", "float targets", "strided", "half buffer", "z_loss", "no GPU", "target too large"):
        change, message = INVALID[name]
        arguments: dict[str, Any] = {"hidden": torch.zeros(4, 8), "weight": torch.zeros(9, 8)}
        arguments |= {"targets": torch.zeros(4).long(), "token_weights": torch.ones(4)}
        arguments |= change if rank == 1 else {}
        if name == "target too large":
            arguments["targets"] = torch.tensor([0, 18 if rank == 1 else 9, 0, 0])
            message = r"targets\[1\] is 18; allowed: 0 to 17"
        with pytest.raises(ArgumentError, match=message if rank == 1 else "rank 1 of the group"):
            masked_linear_cross_entropy(**arguments, group=dist.group.WORLD, sequence_parallel=True)


@pytest.mark.distributed
def test_an_invalid_argument_on_one_rank_raises_on_every_rank() -> None:
    run_on_ranks(_check_error_on_both_ranks, 2)


def test_the_choice_of_backend_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.zeros(3, 16)
    choice = choose(torch.zeros(2, 16), weight)
    assert choice.name == "torch" and "cpu" in choice.reason
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose(torch.zeros(2, 16), weight).name == "triton"
    misaligned = torch.zeros(100)[1:49].reshape(3, 16)
    for arguments, name in (((misaligned,), "weight"), ((weight, "auto", misaligned), "main_grad")):
        assert choose(torch.zeros(2, 16), *arguments) == (
            "torch",
            f"torch: {name} starts 4 bytes after a multiple of 16 bytes",
        )


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
