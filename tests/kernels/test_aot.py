"""What the compiler makes of the kernels for Hopper, and of all of them for each generation; no GPU takes part."""

import json
import sys

import pytest
from commands import run_command

KEYS = {"kernel", "config", "target", "registers", "spill_instructions", "shared_bytes", "hgmma", "hmma", "tma_load"}


@pytest.mark.slow
def test_no_kernel_spills_and_hopper_gets_hgmma_and_tma_and_no_hmma() -> None:
    pytest.importorskip("triton")
    done = run_command(
        [sys.executable, "-m", "acc_megatron", "bench", "kernels", "--aot", "--json"],
        timeout=600,
        TRITON_INTERPRET="0",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout)["rows"]
    assert {row["target"] for row in rows} == {"sm_80", "sm_90a", "sm_100a"}
    for row in rows:
        assert row.keys() >= KEYS | {"tma_store"}
        assert row["spill_instructions"] == 0 and row["stack_bytes"] == 0, row
        assert row["problems"] == [], row
    products = {"tile_statistics", "tile_gradient", "add_product"}
    hopper = [row for row in rows if row["target"] == "sm_90a" and row["config"].startswith("bf16")]
    assert {row["kernel"] for row in hopper} >= products
    for row in hopper:
        if row["kernel"] in products:
            assert row["hgmma"] > 0 and row["tma_load"] > 0 and row["hmma"] == 0, row
            assert row["shared_bytes"] <= 232_448 and row["registers"] <= 255
