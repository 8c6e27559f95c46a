"""The fixed interpreter against torch: casts are exact, arithmetic is equal up to rounding. Run for each new Triton."""

import pytest
import torch
import triton
import triton.language as tl

BF16, E4M3, E5M2 = torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2
GENERATOR = torch.Generator().manual_seed(0)


@triton.jit
def cast(X, OUT, B: tl.constexpr):
    at = tl.arange(0, B)
    tl.store(OUT + at, tl.load(X + at).to(OUT.dtype.element_ty))


@triton.jit
def product(A, B, OUT, M: tl.constexpr):
    at = tl.arange(0, M)[:, None] * M + tl.arange(0, M)[None, :]
    tl.store(OUT + at, tl.dot(tl.load(A + at), tl.load(B + at), input_precision="ieee"))


@triton.jit
def multiply_add(X, Y, OUT, B: tl.constexpr):
    at = tl.arange(0, B)
    tl.store(OUT + at, tl.load(X + at) * tl.load(Y + at) + tl.load(Y + at))


@triton.jit
def reduce_and_scan(X, OUT, SCAN, B: tl.constexpr):
    at = tl.arange(0, B)
    x = tl.load(X + at)
    tl.store(OUT, tl.sum(x, 0).to(tl.float32))
    tl.store(OUT + 1, tl.max(x, 0).to(tl.float32))
    tl.store(SCAN + at, tl.cumsum(x, 0))


@triton.jit
def sum_of_first(X, LENGTH, OUT):
    total = 0.0
    for at in range(0, tl.load(LENGTH)):
        total += tl.load(X + at)
    tl.store(OUT, total)


@pytest.mark.parametrize(
    "source, target", [(torch.float32, BF16), (torch.float32, E4M3), (torch.float32, E5M2), (BF16, E4M3)]
)
def test_casts_round_to_nearest_even(source: torch.dtype, target: torch.dtype) -> None:
    spread = torch.randn(4096, generator=GENERATOR) * torch.exp(2 * torch.randn(4096, generator=GENERATOR))
    x = spread.clamp(-440, 440).to(source)
    out = torch.empty(4096, dtype=target)
    cast[(1,)](x, out, B=4096)
    assert torch.equal(out.float(), x.float().to(target).float())


@pytest.mark.parametrize("value, target", [(1e6, E4M3), (float("inf"), E4M3), (1e6, E5M2)])
def test_casts_to_fp8_saturate(value: float, target: torch.dtype) -> None:
    out = torch.empty(16, dtype=target)
    cast[(1,)](torch.full((16,), value), out, B=16)
    assert out[0].item() == torch.finfo(target).max


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, BF16, E4M3, E5M2])
def test_products_equal_those_of_the_float_values(dtype: torch.dtype) -> None:
    a, b = (torch.randn(64, 64, generator=GENERATOR).to(dtype) for _ in range(2))
    out = torch.empty(64, 64)
    product[(1,)](a, b, out, M=64)
    want = a.double() @ b.double()
    assert (out.double() - want).norm() <= 1e-6 * want.norm()


def test_bfloat16_arithmetic_reductions_and_scans_equal_those_of_the_float_values() -> None:
    x, y = (torch.randn(256, generator=GENERATOR).to(BF16) for _ in range(2))
    out, scan, both = torch.empty(256, dtype=BF16), torch.empty(256, dtype=BF16), torch.empty(2)
    multiply_add[(1,)](x, y, out, B=256)
    torch.testing.assert_close(out, (x * y) + y)
    reduce_and_scan[(1,)](x.abs(), both, scan, B=256)
    assert both[1] == x.abs().max().float()
    torch.testing.assert_close(both[0].double(), x.abs().double().sum(), rtol=2**-8, atol=0)
    torch.testing.assert_close(scan.double(), x.abs().double().cumsum(0), rtol=2**-7, atol=0)


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_a_loaded_scalar_is_a_bound_of_a_loop_and_numpy_deprecates_nothing_that_is_used() -> None:
    out = torch.zeros(1)
    sum_of_first[(1,)](torch.arange(8.0), torch.tensor([5]), out)
    assert out.item() == 10
