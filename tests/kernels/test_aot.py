"""The machine code of the kernels, compiled without a GPU: no spills, and the instructions of each GPU generation."""

import json
import sys
from dataclasses import replace

import pytest
from support.commands import run_command

KEYS = {"kernel", "config", "target", "registers", "spill_instructions", "shared_bytes", "hgmma", "hmma", "tma_load"}
PRODUCTS = {"tile_statistics", "tile_gradient", "add_product"}


def test_on_hopper_the_bfloat16_products_use_hgmma_and_tma_and_do_not_spill() -> None:
    pytest.importorskip("triton")
    from acc_megatron.kernels.benchmark import aot, aot_builds

    # one configuration per kernel; the other configurations are in the slow test
    builds = {build.kernel.__name__: build for build in aot_builds.builds(90) if build.is_product}
    assert builds.keys() == PRODUCTS
    for build in builds.values():
        row = aot.compile_build(build, 90)
        assert row.target == "sm_90a" and row.problems == ()
        assert row.hgmma > 0 and row.tma_load > 0 and row.hmma == row.spill_instructions == 0
    faults = {
        "spill_instructions": (4, "4 spill instructions"),
        "shared_bytes": (300_000, "300000 bytes of shared memory; the limit is 232448"),
        "registers": (257, "257 registers x 8 warps"),
        "hgmma": (0, "no hgmma instruction"),
        "hmma": (2, "2 HMMA instructions"),
    }
    for field, (value, message) in faults.items():
        [problem] = aot.find_problems(replace(row, **{field: value}), 90, is_product=True)
        assert problem.startswith(message)


@pytest.mark.long
@pytest.mark.slow
def test_no_kernel_spills_on_any_generation_and_products_use_its_matrix_instructions() -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "acc_megatron", "bench", "kernels", "--aot", "--json"]
    done = run_command(command, timeout=900, TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout)["rows"]
    assert {row["target"] for row in rows} == {"sm_80", "sm_90a", "sm_100a", "sm_120a"}
    for row in rows:
        assert row.keys() >= KEYS | {"tma_store"}
        assert row["spill_instructions"] == 0 and row["stack_bytes"] == 0, row
        assert row["problems"] == [], row
    hopper = [row for row in rows if row["target"] == "sm_90a" and row["config"].startswith("bf16")]
    assert {row["kernel"] for row in hopper} >= PRODUCTS
    for row in hopper:
        if row["kernel"] in PRODUCTS:
            assert row["hgmma"] > 0 and row["tma_load"] > 0 and row["hmma"] == 0, row
            assert row["shared_bytes"] <= 232_448 and row["registers"] <= 255
