"""The masked head through the kernels: every plan, forward and backward, over awkward shapes, whole and in shards."""

import os

import pytest
import torch
import torch.distributed as dist
from gloo import run_on_ranks
from loss_problems import Answer, Problem, assert_no_worse, error, make, plain

from acc_megatron.kernels import interpreter
from acc_megatron.kernels.masked_linear_cross_entropy import launch, reference
from acc_megatron.kernels.masked_linear_cross_entropy.op import masked_linear_cross_entropy

BF16, FP32 = torch.bfloat16, torch.float32
CASES = {
    "one row": (1, 1, 1000, 128, BF16),
    "one supervised": (97, 1, 1009, 256, BF16),
    "none supervised": (64, 0, 1009, 128, BF16),
    "all supervised, primes": (131, 131, 1021, 128, BF16),
    "float32, primes": (101, 53, 2039, 128, FP32),
    "a shard of Qwen's vocabulary, its hidden size": (61, 5, 18992, 2048, BF16),
    "smaller than a tile": (5, 3, 7, 16, FP32),
}


def run(problem: Problem, plan: str, z_loss: float = 1e-3, main_grad: torch.Tensor | None = None) -> Answer:
    hidden, weight = (x.clone().requires_grad_() for x in (problem.hidden, problem.weight))
    loss, weight_sum, log_probability, entropy = masked_linear_cross_entropy(
        hidden,
        weight,
        problem.targets,
        problem.token_weights,
        z_loss=z_loss,
        per_token=True,
        plan=plan,
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


@pytest.mark.parametrize("plan", ["keep", "recompute"])
@pytest.mark.parametrize("name", CASES)
def test_no_worse_than_plain_code_in_the_same_precision(name: str, plan: str) -> None:
    problem = make(*CASES[name])
    assert_no_worse(run(problem, plan), problem, 1e-3)


@pytest.mark.parametrize("plan", ["keep", "recompute"])
def test_the_gradient_is_added_to_a_float32_buffer_and_to_nothing_else(plan: str) -> None:
    problem = make(*CASES["all supervised, primes"])
    start = torch.randn(problem.weight.shape, generator=torch.Generator().manual_seed(1))
    buffer = start.clone()
    answer = run(problem, plan, main_grad=buffer)
    assert_no_worse(answer._replace(weight=buffer - start), problem, 1e-3)


@pytest.mark.parametrize("plan", ["keep", "recompute"])
def test_the_same_inputs_give_the_same_bits_ten_times(plan: str) -> None:
    problem = make(40, 17, 503, 64, BF16)
    first = run(problem, plan)
    for _ in range(9):
        assert all(torch.equal(one, other) for one, other in zip(first, run(problem, plan), strict=True))


def test_each_stage_equals_its_definition_on_two_simulated_shards() -> None:
    problem = make(30, 30, 1018, 128, FP32)
    z = torch.nn.functional.linear(problem.hidden.double(), problem.weight.double())
    log_sum_exp = z.logsumexp(-1)
    sums, gradients = [], []
    for place, shard in enumerate(problem.weight.chunk(2)):
        columns = problem.targets - 509 * place
        columns = torch.where((columns >= 0) & (columns < 509), columns, -1)
        ours = launch.head_statistics(problem.hidden, shard.contiguous(), columns, 128, True)
        definition = reference.head_statistics(problem.hidden, shard, columns, 128, True)
        for got, want in zip(ours, definition, strict=True):
            torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)
        sums.append(ours.sum_exp.double() * ours.maximum.double().exp())
        scales = problem.token_weights * 2, problem.token_weights
        arguments = (problem.hidden, shard, slice(0, 509), columns, log_sum_exp.float(), *scales)
        gradients.append(launch.window_gradient(*arguments))
        torch.testing.assert_close(gradients[-1], reference.window_gradient(*arguments), rtol=1e-4, atol=1e-6)
    assert error(torch.stack(sums).sum(0).log(), log_sum_exp) < 1e-6
    want = 2 * z.softmax(-1) - torch.nn.functional.one_hot(problem.targets, 1018)
    assert error(torch.cat(gradients, 1), want * problem.token_weights[:, None].double()) < 1e-6


def _check_shards(rank: int) -> None:
    interpreter.install()
    launch.FLOAT32 = launch.HOPPER
    # all supervised rows are with the last rank
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
            plan="recompute",
            implementation="triton",
        )
        loss.backward()
        assert hidden.grad is not None and shard.grad is not None
        assert error(loss.detach(), truth.loss) < 1e-6
        # of all tokens: a slice may hold zeros alone
        assert (hidden.grad - truth.hidden[local]).norm() <= 1e-6 * truth.hidden.norm()
        assert error(shard.grad, truth.weight.chunk(2)[rank]) < 1e-6


@pytest.mark.distributed
def test_two_real_shards_give_the_loss_and_gradients_of_the_whole() -> None:
    assert os.environ["TRITON_INTERPRET"] == "1"
    run_on_ranks(_check_shards, 2)
