"""The kernels of the masked output layer: both memory modes and passes, awkward shapes, one rank and shards."""

import math
import os

import pytest
import torch
import torch.distributed as dist
from support.gloo import run_on_ranks
from support.loss_problems import (
    Answer,
    Problem,
    assert_no_worse,
    assert_within_bounds,
    error,
    make,
    make_trained,
    plain,
)

from acc_megatron.kernels.masked_linear_cross_entropy import launch, reference
from acc_megatron.kernels.masked_linear_cross_entropy.op import masked_linear_cross_entropy
from acc_megatron.kernels.shared import triton_interpreter
from acc_megatron.kernels.shared.softmax_statistics import LOWEST_MAXIMUM

BF16, FP32 = torch.bfloat16, torch.float32
CASES = {
    "one row": (1, 1, 1000, 128, BF16),
    "one supervised": (97, 1, 1009, 256, BF16),
    "none supervised": (64, 0, 1009, 128, BF16),
    "all supervised, primes": (131, 131, 523, 128, BF16),
    "float32, primes": (101, 53, 2039, 128, FP32),
    "hidden size and vocabulary shard of Qwen": (61, 5, 18992, 2048, BF16),
    "smaller than a tile": (5, 3, 7, 16, FP32),
}
SLOW = {"one supervised", "float32, primes", "hidden size and vocabulary shard of Qwen"}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CASES]
MEMORY_MODES = ("keep", "recompute")


def run(problem: Problem, memory_mode: str, z_loss: float = 1e-3, main_grad: torch.Tensor | None = None) -> Answer:
    hidden, weight = (x.clone().requires_grad_() for x in (problem.hidden, problem.weight))
    loss, weight_sum, log_probability, entropy = masked_linear_cross_entropy(
        hidden,
        weight,
        problem.targets,
        problem.token_weights,
        z_loss=z_loss,
        per_token=True,
        memory_mode=memory_mode,
        main_grad=main_grad,
        implementation="triton",
    )
    loss.backward()
    rows = problem.token_weights > 0
    torch.testing.assert_close(weight_sum, problem.token_weights.sum())
    assert hidden.grad is not None and (hidden.grad[~rows] == 0).all()
    if main_grad is not None:
        assert weight.grad is None
    dweight = weight.grad if main_grad is None else main_grad
    assert dweight is not None
    return Answer(loss.detach(), hidden.grad, dweight, log_probability[rows], entropy[rows])


@pytest.mark.parametrize("memory_mode", MEMORY_MODES)
@pytest.mark.parametrize("name", NAMES)
def test_results_are_as_exact_as_plain_torch_in_the_same_precision(name: str, memory_mode: str) -> None:
    problem = make(*CASES[name])
    assert_no_worse(run(problem, memory_mode), problem, 1e-3)


@pytest.mark.parametrize("memory_mode", MEMORY_MODES)
def test_both_memory_modes_agree_with_float64_to_the_same_bounds(memory_mode: str) -> None:
    problem = make_trained()
    buffer = torch.zeros(problem.weight.shape)
    assert_within_bounds(run(problem, memory_mode, main_grad=buffer), problem, 1e-3)


TILES = [
    pytest.param(tile, dtype, marks=() if dtype in usual else pytest.mark.slow)
    for tile, usual in ((launch.AMPERE, {torch.float16}), (launch.HOPPER, {BF16}), (launch.FLOAT32, {FP32}))
    for dtype in (BF16, torch.float16, FP32)
]


@pytest.mark.parametrize(("tile", "dtype"), TILES)
def test_every_tile_shape_is_as_exact_as_plain_torch(
    tile: launch.Tile, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "choose_tile", lambda *_: tile)
    # more than one tile of each shape in every dim, with tails
    problem = make(150, 133, 267, 80, dtype)
    for answer in [run(problem, memory_mode) for memory_mode in MEMORY_MODES]:
        assert_no_worse(answer, problem, 1e-3)


@pytest.mark.parametrize("memory_mode", MEMORY_MODES)
def test_pointers_as_on_gpus_without_tma_give_the_bits_of_descriptors(
    memory_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make(40, 37, 267, 80, BF16)
    want = run(problem, memory_mode)
    monkeypatch.setattr(launch, "MIN_TMA_CAPABILITY", 100)
    assert all(torch.equal(one, other) for one, other in zip(run(problem, memory_mode), want, strict=True))


@pytest.mark.parametrize("memory_mode", MEMORY_MODES)
def test_a_tile_of_minus_infinity_gives_the_log_probability_of_torch(memory_mode: str) -> None:
    problem = make(5, 5, 600, 16, FP32)
    problem.hidden[:, 0] = 1
    problem.weight[:300, 0] = float("-inf")
    problem = problem._replace(targets=problem.targets % 300 + 300)
    truth = plain(problem, torch.float64, 1e-3)
    got = run(problem, memory_mode)
    torch.testing.assert_close(got.log_probability.double(), truth.log_probability, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory_mode", MEMORY_MODES)
def test_logits_above_the_range_of_float16_do_not_overflow(memory_mode: str) -> None:
    problem = make(7, 5, 300, 16, torch.float16, weight_scale=1e4)
    truth = plain(problem, torch.float64, 0.0)
    got = run(problem, memory_mode, z_loss=0.0)
    assert truth.loss > 65504 and error(got.loss, truth.loss) < 1e-5


@pytest.mark.parametrize("memory_mode", MEMORY_MODES)
def test_the_weight_gradient_is_added_to_main_grad_only(memory_mode: str) -> None:
    problem = make(*CASES["all supervised, primes"])
    start = torch.randn(problem.weight.shape, generator=torch.Generator().manual_seed(1))
    buffer = start.clone()
    answer = run(problem, memory_mode, main_grad=buffer)
    assert_no_worse(answer._replace(weight=buffer - start), problem, 1e-3)


@pytest.mark.parametrize("memory_mode", MEMORY_MODES)
def test_the_same_inputs_always_give_the_same_bits(memory_mode: str) -> None:
    problem = make(40, 17, 503, 64, BF16)
    first = run(problem, memory_mode)
    for _ in range(3):
        assert all(torch.equal(one, other) for one, other in zip(first, run(problem, memory_mode), strict=True))


def test_each_backend_function_equals_the_reference_on_two_simulated_shards() -> None:
    problem = make(30, 30, 1018, 128, FP32)
    z = torch.nn.functional.linear(problem.hidden.double(), problem.weight.double())
    log_sum_exp = z.logsumexp(-1)
    sums, gradients = [], []
    for rank, shard in enumerate(problem.weight.chunk(2)):
        columns = problem.targets - 509 * rank
        columns = torch.where((columns >= 0) & (columns < 509), columns, -1)
        options = {"with_entropy": True, "keep": True}
        kernel_statistics, kept = launch.head_statistics(problem.hidden, shard.contiguous(), columns, **options)
        expected, kept_by_reference = reference.head_statistics(problem.hidden, shard, columns, **options)
        for got, want in zip(kernel_statistics, expected, strict=True):
            torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)
        sums.append(kernel_statistics.sum_exp.double() * kernel_statistics.maximum.double().exp())
        scales = problem.token_weights * 2, problem.token_weights
        arguments = (problem.hidden, shard, slice(0, 509), columns, log_sum_exp.float(), *scales)
        gradients.append(launch.window_gradient(*arguments))
        torch.testing.assert_close(gradients[-1], reference.window_gradient(*arguments), rtol=1e-4, atol=1e-6)
        assert kept is not None and kept_by_reference is not None
        row_values = columns, log_sum_exp.float(), *scales
        for backend, own in ((launch, kept), (reference, kept_by_reference)):
            torch.testing.assert_close(backend.kept_gradient(own, *row_values), gradients[-1], rtol=1e-4, atol=1e-6)
    assert error(torch.stack(sums).sum(0).log(), log_sum_exp) < 1e-6
    want = 2 * z.softmax(-1) - torch.nn.functional.one_hot(problem.targets, 1018)
    assert error(torch.cat(gradients, 1), want * problem.token_weights[:, None].double()) < 1e-6


def _check_shards(rank: int) -> None:
    triton_interpreter.install()
    launch.FLOAT32 = launch.HOPPER
    # the last rank has all supervised rows
    problem = make(24, 9, 1008, 64, FP32)
    order = problem.token_weights.argsort(stable=True)
    problem = Problem(problem.hidden[order], problem.weight, problem.targets[order], problem.token_weights[order])
    truth = plain(problem, torch.float64, 0.0)
    for sequence_parallel in (False, True):
        local = slice(12 * rank, 12 * rank + 12) if sequence_parallel else slice(None)
        hidden = problem.hidden[local].clone().requires_grad_()
        shard = problem.weight.chunk(2)[rank].clone().requires_grad_()
        loss, _ = masked_linear_cross_entropy(
            hidden,
            shard,
            problem.targets[local],
            problem.token_weights[local],
            group=dist.group.WORLD,
            sequence_parallel=sequence_parallel,
            memory_mode="recompute",
            implementation="triton",
        )
        loss.backward()
        assert hidden.grad is not None and shard.grad is not None
        assert error(loss.detach(), truth.loss) < 1e-6
        # relative to all tokens: the slice of a rank may be all zeros
        assert (hidden.grad - truth.hidden[local]).norm() <= 1e-6 * truth.hidden.norm()
        assert error(shard.grad, truth.weight.chunk(2)[rank]) < 1e-6


@pytest.mark.slow
@pytest.mark.distributed
def test_two_real_shards_give_the_loss_and_gradients_of_one_rank() -> None:
    assert os.environ["TRITON_INTERPRET"] == "1"
    run_on_ranks(_check_shards, 2)


def test_partial_statistics_are_merged_over_several_steps_of_parts_and_programs() -> None:
    parts, num_rows = 2 * launch.MERGED_PARTS + 3, launch.MERGED_ROWS + 5
    logits = 3 * torch.randn(parts, 7, num_rows, generator=torch.Generator().manual_seed(0))
    logits[: launch.MERGED_PARTS + 1, :, 0] = float("-inf")
    base_2 = logits / math.log(2)
    maximum = base_2.amax(1).clamp(min=LOWEST_MAXIMUM)
    shifted = base_2 - maximum[:, None]
    exponentials = shifted.exp2()
    moment = torch.where(exponentials > 0, shifted * exponentials, 0.0).sum(1)
    got_maximum, got_total, got_moment = torch.empty(3, num_rows).unbind()
    launch.kernel.merge_statistics[(2,)](
        maximum, exponentials.sum(1), moment, got_maximum, got_total, got_moment, num_rows, parts,
        B=launch.MERGED_ROWS, P=launch.MERGED_PARTS, ENTROPY=True,
    )  # fmt: skip
    log_softmax = logits.double().flatten(0, 1).log_softmax(0)
    want = -torch.where(log_softmax.isfinite(), log_softmax.exp() * log_softmax, 0.0).sum(0)
    torch.testing.assert_close((got_maximum + got_total.log()).double(), logits.double().flatten(0, 1).logsumexp(0))
    torch.testing.assert_close((got_total.log() - got_moment / got_total).double(), want, rtol=1e-5, atol=1e-5)
