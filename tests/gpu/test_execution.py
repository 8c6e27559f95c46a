"""What only a GPU shows: repeatability, streams, devices, offsets above 2^31, empty collectives."""

import pytest
import torch
import torch.nn.functional as F
from support.gpu_problems import MODES, Shape, make_on, run
from support.loss_problems import error

from acc_megatron.kernels.masked_linear_cross_entropy.op import masked_linear_cross_entropy
from acc_megatron.kernels.vocab_parallel_cross_entropy.op import vocab_parallel_cross_entropy

pytestmark = pytest.mark.gpu
BF16 = torch.bfloat16
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU")


def typical(device: str) -> Shape:
    return Shape(4096, 655, 18992, 2048) if device == "cuda" else Shape(60, 20, 503, 64)


@pytest.mark.parametrize("memory_mode", MODES)
def test_the_same_inputs_always_give_the_same_bits(memory_mode: str, device: str) -> None:
    problem = make_on(device, typical(device), BF16)
    first = run(problem, memory_mode, with_buffer=False)
    for _ in range(4):
        again = run(problem, memory_mode, with_buffer=False)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("memory_mode", MODES)
def test_nan_of_a_supervised_row_reaches_the_loss_and_nan_of_other_rows_does_not(memory_mode: str, device: str) -> None:
    problem = make_on(device, typical(device), BF16)
    is_supervised = problem.token_weights > 0
    problem.hidden[~is_supervised] = float("nan")

    def loss() -> torch.Tensor:
        return masked_linear_cross_entropy(*problem, memory_mode=memory_mode, implementation="triton")[0]

    assert loss().isfinite()
    problem.hidden[is_supervised.nonzero()[1]] = float("nan")
    assert loss().isnan()


@needs_cuda
def test_another_stream_gives_the_same_bits_while_the_default_stream_is_busy(device: str) -> None:
    problem = make_on(device, typical(device), BF16)
    want = run(problem, "recompute", with_buffer=False)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    noise = torch.randn(4096, 4096, device=device)
    with torch.cuda.stream(stream):
        answers = [run(problem, "recompute", with_buffer=False) for _ in range(3)]
    for _ in range(8):
        noise = (noise @ noise).clamp(-1, 1)
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for answer in answers for a, b in zip(want, answer, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tensors_on_another_than_the_current_gpu_give_the_same_bits() -> None:
    want = run(make_on("cuda:0", typical("cuda"), BF16), "keep", with_buffer=True)
    got = run(make_on("cuda:1", typical("cuda"), BF16), "keep", with_buffer=True)
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(want, got, strict=True))


@needs_cuda
def test_the_last_rows_of_more_than_2_to_31_logits_are_right(device: str) -> None:
    num_rows, vocab = 16384, 151936
    problem = make_on(device, Shape(num_rows, num_rows, vocab, 64), BF16, logit_std=1.0)
    got = run(problem, "keep", with_buffer=True, z_loss=0.0)
    tail = slice(num_rows - 64, num_rows)
    logits = problem.hidden[tail].double() @ problem.weight.double().T
    log_softmax = logits.log_softmax(1)
    index = problem.targets[tail, None]
    assert error(got.log_probability[-64:], log_softmax.gather(1, index).squeeze(1)) < 1e-6
    gradient = log_softmax.exp().scatter_add_(1, index, torch.full_like(index, -1, dtype=torch.float64))
    gradient *= problem.token_weights[tail, None].double()
    assert error(got.hidden[tail], gradient @ problem.weight.double()) < 6e-3


@needs_cuda
def test_the_row_kernels_are_right_past_2_to_31_elements(device: str) -> None:
    num_rows, vocab = 16384, 151936
    logits = torch.empty(num_rows, vocab, dtype=BF16, device=device)
    logits.normal_(generator=torch.Generator(device).manual_seed(0))
    weights = torch.zeros(num_rows, device=device)
    weights[-8:] = 1
    targets = torch.randint(0, vocab, (num_rows,), device=device)
    reference = logits[-8:].double().requires_grad_()
    F.cross_entropy(reference, targets[-8:], reduction="sum").backward()
    vocab_parallel_cross_entropy(logits.requires_grad_(), targets, weights, implementation="triton")[0].backward()
    assert reference.grad is not None
    assert error(logits.detach()[-8:], reference.grad) < 4e-3 and (logits.detach()[:-8] == 0).all()
