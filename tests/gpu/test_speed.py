"""Figures of the kernel benchmark for the README. No test asserts a time."""

from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch

from acc_megatron.kernels.benchmark.ceilings import measure_ceiling
from acc_megatron.kernels.benchmark.costs import Case
from acc_megatron.kernels.benchmark.run import run_benchmark

pytestmark = pytest.mark.gpu
CASES = {
    "TP 2, CP 8: 655 rows": Case(8192, 655, 75968, 2048),
    "TP 8: 5,243 rows": Case(16384, 5243, 18992, 2048),
    # plain needs 30 GB here; at 131,072 tokens it fits on no GPU
    "TP 1: 655 rows": Case(16384, 655, 151936, 2048),
}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU")
@pytest.mark.parametrize("name", CASES)
def test_every_available_implementation_is_measured(name: str, record: Callable[..., None]) -> None:
    rows = run_benchmark(CASES[name], "bfloat16", repeats=20, ceiling=measure_ceiling("bfloat16"), progress=print)
    assert rows
    for row in rows:
        record(name, **asdict(row))
