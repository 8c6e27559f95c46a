"""AdamW with narrow state: each stored form against its definition, and an update against one in float64."""

from typing import Any

import pytest
import torch

from acc_megatron.model.stored_numbers import RANGES, join_remainder, read_scaled, split_remainder, write_scaled
from acc_megatron.training.optimizers.narrow_adamw import NarrowAdamW

RATE, DECAY, EPSILON, BETAS, STEPS = 1e-2, 0.1, 1e-8, (0.9, 0.95), 3


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_bfloat16_weight_and_its_remainder_are_a_float32_weight_bit_for_bit() -> None:
    ties = torch.tensor([0x3F808000, 0x3F818000, -0x407F8000, 0x3F807FFF, 0x3F80FFFF, 0], dtype=torch.int32)
    values = torch.cat([numbers(10_000), numbers(1000) * 1e-30, ties.view(torch.float32)])
    weight, remainder = torch.empty(len(values), dtype=torch.bfloat16), torch.empty(len(values), dtype=torch.int16)
    split_remainder(values, weight, remainder)
    assert torch.equal(join_remainder(weight, remainder).view(torch.int32), values.view(torch.int32))
    is_tie = (values.view(torch.int32) & 0xFFFF) == 0x8000
    assert torch.equal(weight[~is_tie], values[~is_tie].bfloat16()) and int(is_tie.sum()) >= 3
    assert bool((weight[is_tie].float().abs() >= values[is_tie].abs()).all()), "half is rounded away from 0"


@pytest.mark.parametrize(("dtype", "error"), [(torch.uint8, 2**-4), (torch.float16, 2**-11)])
def test_the_largest_value_of_a_tensor_sets_its_scale(dtype: torch.dtype, error: float) -> None:
    values, scale = numbers(4096) * 1e-5, torch.ones(1)
    stored = torch.zeros(4096, dtype=dtype)
    write_scaled(values, stored, scale)
    largest = values.abs().max()
    torch.testing.assert_close(scale[0], largest / RANGES[dtype], rtol=1e-6, atol=0)
    back = read_scaled(stored, scale)
    torch.testing.assert_close(back.abs().max(), largest, rtol=1e-6, atol=0)
    # below 2^-14 of the largest value fp8 has no full precision
    normal = values.abs() > largest * 2**-14
    assert float(((back - values).abs() / values.abs())[normal].max()) <= error


def test_a_tensor_of_zeros_stays_zero_in_fp8() -> None:
    stored, scale = torch.full((8,), 7, dtype=torch.uint8), torch.ones(1)
    write_scaled(torch.zeros(8), stored, scale)
    assert torch.equal(read_scaled(stored, scale), torch.zeros(8))


def make(weight: torch.Tensor, **storage: Any) -> NarrowAdamW:
    return NarrowAdamW([weight], lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY, use_decoupled_grad=True,
                       master_weights=True, **storage)  # fmt: skip


def rounded(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Float64 values as they are read back from a stored tensor; uint8 is scaled e4m3."""
    if dtype is torch.uint8:
        scale = value.abs().max() / 448
        return (value / scale).float().to(torch.float8_e4m3fn).double() * scale
    return value.to(dtype).double()


STORAGE = {
    "float32": {},
    "bfloat16": {"exp_avg_dtype": torch.bfloat16, "exp_avg_sq_dtype": torch.bfloat16},
    "fp8": {"exp_avg_dtype": torch.uint8, "exp_avg_sq_dtype": torch.bfloat16},
    "remainders": {"store_param_remainders": True},
}


@pytest.mark.parametrize("name", STORAGE)
def test_an_update_reads_float32_and_rounds_the_state_once(name: str) -> None:
    storage = STORAGE[name]
    weight = numbers(64, 32).bfloat16()
    optimizer = make(weight, **storage)
    w, m, v = weight.double(), torch.zeros(64, 32).double(), torch.zeros(64, 32).double()
    for step in range(1, STEPS + 1):
        gradient = numbers(64, 32, seed=step).bfloat16()
        weight.decoupled_grad = gradient  # type: ignore[attr-defined]
        optimizer.step()
        m = BETAS[0] * m + (1 - BETAS[0]) * gradient.double()
        v = BETAS[1] * v + (1 - BETAS[1]) * gradient.double() ** 2
        update = m / (1 - BETAS[0] ** step) / ((v / (1 - BETAS[1] ** step)).sqrt() + EPSILON)
        w = w - RATE * (update + DECAY * w)
        m = rounded(m, storage.get("exp_avg_dtype", torch.float32))
        v = rounded(v, storage.get("exp_avg_sq_dtype", torch.float32))
    assert optimizer.param_groups[0]["step"] == STEPS
    # a value near the middle of two stored ones may be rounded to the other one: then an update differs a little
    close = (optimizer._read_weight(weight).double() - w).abs() <= 1e-6 + 1e-5 * w.abs()
    assert float(close.double().mean()) > 0.995
    assert torch.equal(weight, weight.clone()) and (weight.float() - w).abs().max() <= 2**-8 * w.abs().max()


def test_weights_of_float16_have_the_precision_of_float16() -> None:
    weight = numbers(64, 32).bfloat16()
    before, optimizer = weight.float(), make(weight, master_weight_dtype=torch.float16)
    weight.decoupled_grad = torch.zeros(64, 32)  # type: ignore[attr-defined]
    optimizer.step()
    expected = before * (1 - RATE * DECAY)
    assert optimizer.state[weight]["master_param"].dtype is torch.float16
    torch.testing.assert_close(optimizer._read_weight(weight), expected, rtol=2**-10, atol=1e-6)


def test_a_moment_in_fp8_that_follows_a_steady_gradient_stops_above_62_percent_of_it() -> None:
    """Neighbours of e4m3 differ by up to 1/8, and 0.1 of what is missing must be half of that to be stored."""
    weight = torch.zeros(65).bfloat16()
    optimizer = make(weight, **STORAGE["fp8"])
    gradient = torch.cat([torch.linspace(1, 2, 64), torch.tensor([64.0])])
    for step in range(400):  # the largest value, which sets the scale, comes first: a moving scale shakes values free
        weight.decoupled_grad = gradient * (gradient > 2) if step < 200 else gradient  # type: ignore[attr-defined]
        optimizer.step()
    share = optimizer._read(weight, "exp_avg") / gradient
    assert 1 / 1.625 - 1e-3 <= float(share.min()) < 0.7
    assert float(share.max()) <= 1.001
