"""The file of measured speeds: what is written is what a plan uses, and damaged files are refused."""

from pathlib import Path

import pytest

from acc_megatron.errors import ConfigError
from acc_megatron.plan.curve import Curve
from acc_megatron.plan.machine_file import MeasuredMachine, MeasuredSpeeds, read_machine, write_machine
from acc_megatron.plan.speeds import Link

LINK = Link(kind="ring", num_ranks=8, num_nodes=2, latency_seconds=2e-5, bytes_per_second=1.5e11)
FOUND = MeasuredSpeeds(
    gemm=Curve((1024, 4096), (4e14, 6e14)),
    expert_gemm=Curve((64, 256), (2e14, 4e14)),
    attention_forward=Curve((8192, 131_072), (5e14, 6e14)),
    attention_backward=Curve((8192, 131_072), (4e14, 5e14)),
    memory_bytes_per_second=2.5e12,
    permutation_bytes_per_second=2e12,
    update_bytes_per_second=2.2e12,
    host_seconds_per_layer=1e-3,
    links=[LINK],
)
ABOUT = MeasuredMachine(
    machine='node "a"', versions="torch=2.13.0", date="2026-01-02T03:04:05Z", num_processes=16, on_gpu=True,
    spec="h100", memory_bytes=84.9e9, compute_capability=9.0,
)  # fmt: skip


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "machine.toml"
    write_machine(path, FOUND, ABOUT)
    return path


def test_a_speed_between_two_sizes_follows_the_logarithm_of_the_size() -> None:
    curve = Curve((1024, 4096), (100.0, 200.0))
    assert [curve.at(size) for size in (1, 1024, 2048, 4096, 1e9)] == [100.0, 100.0, pytest.approx(150.0), 200.0, 200.0]


def test_a_plan_uses_the_speeds_that_were_written(written: Path) -> None:
    speeds = read_machine(str(written))
    for name in ("gemm", "expert_gemm", "attention_forward", "attention_backward", "memory_bytes_per_second",
                 "permutation_bytes_per_second", "update_bytes_per_second", "host_seconds_per_layer"):  # fmt: skip
        assert getattr(speeds, name) == getattr(FOUND, name), name
    assert speeds.links == (LINK,) and speeds.link("ring", 8, 2) == LINK and speeds.link("ring", 8, 1) is None
    # a known GPU keeps the links of its data sheet, and has the memory of this machine
    assert speeds.machine.nvlink_bytes_per_second == 450e9 and speeds.machine.memory_bytes == 84.9e9
    assert 'node "a"' in speeds.source and "2026-01-02T03:04:05Z" in speeds.source


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("format_version = 1", "format_version = 2", "format_version = 2, but this version reads 1"),
        ("tokens = [1024, 4096]", "tokens = [4096, 1024]", r"\[gemm\] needs increasing tokens"),
        ("tokens = [64, 256]", "tokens = [64]", r"\[expert_gemm\] needs increasing tokens"),
        ("500000000000000.0", "nan", "needs increasing tokens and a positive FLOP/s"),
        ("memory_bytes_per_second = 2500000000000.0", "memory_bytes_per_second = 0.0", "must be above 0"),
        ('kind = ["ring"]', 'kind = ["star"]', "entry 0 is not a link"),
        ("num_nodes = [2]", "num_nodes = []", "the lists have 1, 1, 0, 1, 1 entries"),
        ("host_seconds_per_layer", "host_seconds_per_leyer", "did you mean host_seconds_per_layer"),
    ],
)
def test_a_file_that_no_calibration_wrote_is_refused(written: Path, old: str, new: str, message: str) -> None:
    text = written.read_text()
    assert old in text
    written.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_machine(str(written))
