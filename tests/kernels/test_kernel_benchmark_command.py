"""`acc-megatron bench kernels`: options, measurements in their own processes, and what the command writes."""

import csv
from pathlib import Path
from typing import Any

import pytest
from support.commands import acc, good
from typer.testing import CliRunner

from acc_megatron.bench.kernels_cases import ON_CPU, make_sweep
from acc_megatron.cli.bench import bench
from acc_megatron.errors import ConfigError
from acc_megatron.kernels.benchmark.costs import Case
from acc_megatron.kernels.benchmark.registry import IMPLEMENTATIONS

OPTIONS: dict[str, Any] = {
    "tokens": None,
    "supervised_share": None,
    "tensor_parallel": "1",
    "vocab": None,
    "hidden": None,
    "dtype": None,
}


def test_one_option_can_be_a_sweep() -> None:
    assert make_sweep(ON_CPU, **OPTIONS).cases == (Case(1024, 41, 8192, 256, 4),)
    sweep = make_sweep(ON_CPU, **OPTIONS | {"tensor_parallel": "1,2,8", "dtype": "bfloat16"})
    assert sweep.axis == "num_shards"
    assert sweep.cases == tuple(Case(1024, 41, 8192 // count, 256, 2, count) for count in (1, 2, 8))
    assert [case.supervised for case in make_sweep(ON_CPU, **OPTIONS | {"supervised_share": "0,1"}).cases] == [0, 1024]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dtype": "int8"}, "--dtype is 'int8'; allowed: float32, bfloat16, float16"),
        ({"tokens": "1,x"}, "--tokens is '1,x'; allowed: a number from 1, or several with commas"),
        ({"supervised_share": "1.5"}, "--supervised-share is '1.5'; allowed: a number from 0 to 1, or several"),
        ({"tensor_parallel": "3"}, "--tensor-parallel is 3; --vocab 8192 is not a multiple of it"),
        ({"tokens": "1,2", "supervised_share": "0,1"}, "only one of --tokens"),
    ],
)
def test_an_invalid_option_is_an_error(changed: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make_sweep(ON_CPU, **OPTIONS | changed)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("mode", "option"),
    [("--costs", "--csv"), ("--list", "--plot"), ("--aot", "--only"), ("--parts", "--plot"), ("--parts", "--only")],
)
def test_an_option_without_effect_is_an_error(mode: str, option: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(bench, ["kernels", mode, option, str(tmp_path / "file.svg")])
    assert isinstance(done.exception, ConfigError) and str(done.exception).startswith(f"{option} has no effect")
    assert not any(tmp_path.iterdir())


def test_the_costs_are_printed_for_every_implementation_with_a_formula() -> None:
    done = CliRunner().invoke(bench, ["kernels", "--costs"])
    assert done.exit_code == 0
    named = {line.split(" | ")[0].removeprefix("| ") for line in done.stdout.splitlines()[2:]}
    known = {each.name for each in IMPLEMENTATIONS if each.cost(Case(64, 4, 128, 16)) is not None}
    assert named == known | {"floor"} and len(known) > 10


@pytest.mark.slow
def test_the_command_measures_every_implementation_of_this_machine_exactly(tmp_path: Path) -> None:
    size = ("--tokens", "256", "--vocab", "512", "--hidden", "16", "--repeats", "2")
    only = ("plain", "ours, keep", "Megatron-core", "quack")
    files = ("--csv", tmp_path / "rows.csv", "--plot", tmp_path / "rows.svg")
    names = [word for name in only for word in ("--only", name)]
    result = good(acc("bench", "kernels", *size, *names, *files, "--json"))
    assert result["tokens"] == 256 and result["vocab"] == 512 and result["hidden"] == 16
    assert result["supervised_share"] == pytest.approx(0.04, abs=0.01) and result["machine"]
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["implementation"] for row in rows if row["direction"] == "both"] == list(only)
    assert rows[-1]["status"] == "not available: needs a GPU" and rows[-1]["p50_us"] == ""
    for row in rows[:-1]:
        assert row["status"] == "measured" and int(row["p20_us"]) <= int(row["p80_us"]) and "torch=" in row["versions"]
        assert row["package"].split("=")[0] in ("torch", "acc-megatron", "megatron-core") and row["commit"]
        assert all(float(row[f"{name}_error"]) < 1e-5 for name in ("loss", "hidden", "weight"))
    assert "<svg" in (tmp_path / "rows.svg").read_text()


@pytest.mark.slow
def test_the_parts_are_written_to_a_csv_file_with_machine_versions_and_commit(tmp_path: Path) -> None:
    size = ("--tokens", "256", "--vocab", "512", "--hidden", "16", "--repeats", "2")
    shown = good(acc("bench", "kernels", "--parts", *size, "--csv", tmp_path / "parts.csv", "--json"))
    with (tmp_path / "parts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["part"] for row in rows] == [row["part"] for row in shown["rows"]] and len(rows) == 7
    for row in rows:
        assert row["status"] == "measured" and float(row["p20_us"]) <= float(row["p80_us"])
        assert row["machine"] and "torch=" in row["versions"] and row["commit"] == shown["commit"]


@pytest.mark.slow
def test_at_a_size_where_plain_does_not_fit_ours_is_measured() -> None:
    # plain needs 1.6 TB; the supervised rows need a few MB
    size = ("--tokens", "200000", "--supervised-share", "0.0001", "--vocab", "1000000", "--hidden", "16")
    result = good(
        acc("bench", "kernels", *size, "--repeats", "1", "--only", "plain", "--only", "ours, recompute", "--json")
    )
    plain, *ours = result["rows"]
    assert plain["status"].startswith("does not fit: ") and plain["p50_us"] is None
    assert [row["status"] for row in ours] == ["measured"] * 3
    assert result["time_ratio_vs_plain"] is None and result["implementation"] == "ours, recompute"
