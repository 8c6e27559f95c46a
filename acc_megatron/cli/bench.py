"""The group `acc-megatron bench`: benchmarks that print figures and append rows to a CSV file."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from acc_megatron.cli.options import Json, Overrides, Recipe, print_result
from acc_megatron.errors import ConfigError

PLOT_FORMATS = (".svg", ".png", ".pdf")  # that matplotlib writes without further packages

bench = typer.Typer(
    no_args_is_help=True, help="Run a benchmark. Rows with machine and versions are appended to a CSV file."
)


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _real_trajectories(folder: str) -> Path | None:
    """The folder of --real, or None, with a message, if it does not exist."""
    if folder and not Path(folder).is_dir():
        _print_progress(f"--real: {folder} does not exist, so no real trajectories are measured")
    return Path(folder) if folder and Path(folder).is_dir() else None


def _sizes_mb(curve: str) -> list[float]:
    """The sizes of --curve. Raises ConfigError for one that is not a number above 0."""
    try:
        sizes = [float(size) for size in curve.split(",") if size]
    except ValueError:
        sizes = [0.0]
    if not all(0 < size < float("inf") for size in sizes):
        raise ConfigError(f"--curve is {curve!r}; allowed: numbers of MB above 0 with commas, such as 10,100, or ''")
    return sizes


@bench.command()
def data(
    megabytes: Annotated[float, typer.Option(min=0.01, help="Size of the generated input.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds; figures are medians over them.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of convert and of Megatron.")] = 2,
    engine: Annotated[str, typer.Option(help="auto, tiktoken or gigatoken.")] = "auto",
    curve: Annotated[str, typer.Option(help="Input sizes in MB of the memory curve; '' for none.")] = "10,100",
    real: Annotated[
        str, typer.Option(help="Folder of real trajectories, skipped if it does not exist; '' for none.")
    ] = "../shared/data",
    csv_file: Annotated[Path, typer.Option("--csv", help="File to append rows to.")] = Path("runs/bench/data.csv"),
    as_json: Json = False,
) -> None:
    """Compare `convert` with Megatron's preprocessing and with the bare tokenizer."""
    from acc_megatron.bench.csv_file import check_writable
    from acc_megatron.bench.data import bench_data

    sizes_mb = _sizes_mb(curve)
    check_writable(csv_file)
    with tempfile.TemporaryDirectory() as folder:
        result = bench_data(
            Path(folder),
            megabytes=megabytes,
            rounds=rounds,
            workers=workers,
            engine=engine,
            curve_megabytes=sizes_mb,
            real=_real_trajectories(real),
            csv_file=csv_file,
            say=_print_progress,
        )
    print_result(result, as_json)


@bench.command()
def kernels(
    tokens: Annotated[
        str | None, typer.Option(help="Tokens of the sequence, or a sweep such as 8192,32768 (131072; on CPU 1024).")
    ] = None,
    supervised_share: Annotated[
        str | None, typer.Option(help="Share of supervised tokens, or a sweep such as 0.01,0.1,1 (0.04).")
    ] = None,
    tensor_parallel: Annotated[
        str, typer.Option(help="Ranks that share the vocabulary, of which one is measured, or a sweep such as 1,2,4.")
    ] = "1",
    vocab: Annotated[int | None, typer.Option(min=1, help="Full vocabulary size (151936; on CPU 8192).")] = None,
    hidden: Annotated[int | None, typer.Option(min=1, help="Hidden size (2048; on CPU 256).")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16 (bfloat16; on CPU float32).")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Number of repeats; percentiles are over them.")] = 20,
    only: Annotated[list[str] | None, typer.Option(help="Measure this implementation only; can be repeated.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="File to append rows to.")] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", help="File to draw bars, or lines of a sweep, into, e.g. bench.svg.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Print the implementations; measure nothing.")] = False,
    parts: Annotated[
        bool, typer.Option("--parts", help="Measure the products and kernels of the op one by one.")
    ] = False,
    costs: Annotated[bool, typer.Option("--costs", help="Print formulas for 131,072 tokens; measure nothing.")] = False,
    aot: Annotated[
        bool, typer.Option("--aot", help="Compile for sm_80, sm_90, sm_100 and sm_120; needs no GPU.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare time, memory and accuracy of the masked loss with plain torch and other libraries."""
    from acc_megatron.bench.csv_file import check_writable
    from acc_megatron.bench.kernels import run_aot, run_costs, run_kernel_benchmark, run_list, run_parts

    for option, value, is_used in (
        ("--csv", csv_file, not (show_list or costs or aot)),
        ("--plot", plot_file, not (show_list or costs or aot or parts)),
        ("--only", only, not (show_list or costs or aot or parts)),
    ):
        if value and not is_used:
            raise ConfigError(f"{option} has no effect with --list, --costs, --aot or --parts: leave it out")
    for file in (csv_file, plot_file):
        if file is not None:
            check_writable(file)
    if plot_file is not None and plot_file.suffix.lower() not in PLOT_FORMATS:
        raise ConfigError(f"--plot {plot_file}: the name must end with {', '.join(PLOT_FORMATS)}")
    options: dict[str, Any] = {
        "tokens": tokens,
        "supervised_share": supervised_share,
        "tensor_parallel": tensor_parallel,
        "vocab": vocab,
        "hidden": hidden,
        "dtype": dtype,
        "repeats": repeats,
    }
    if aot:
        run_aot(as_json)
    elif costs:
        run_costs(as_json)
    elif show_list:
        run_list(as_json)
    elif parts:
        run_parts(**options, csv_file=csv_file, as_json=as_json)
    else:
        run_kernel_benchmark(**options, only=only or (), csv_file=csv_file, plot_file=plot_file, as_json=as_json)


@bench.command()
def step(
    config: Recipe,
    overrides: Overrides = None,
    balance: Annotated[
        bool, typer.Option("--balance", help="Compute how evenly microbatches keep ranks busy; measure nothing.")
    ] = False,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="With --balance: world size. Default: the smallest that the layout allows."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each loop; figures are medians over them.")] = 7,
    csv_file: Annotated[Path, typer.Option("--csv", help="File to append rows to.")] = Path("runs/bench/step.csv"),
    as_json: Json = False,
) -> None:
    """Compare the time of a training step with a bare megatron-core loop and with transformers."""
    from acc_megatron.config import load_config

    recipe = load_config(config, overrides or [])
    if balance:
        from acc_megatron.bench.balance import balance as compute_balance
        from acc_megatron.mesh.layout import build_layout, smallest_world

        layout = build_layout(recipe.parallel, gpus or smallest_world(recipe.parallel))
        print_result(compute_balance(recipe, layout), as_json)
        return
    if gpus:
        raise ConfigError("--gpus belongs to --balance: the loops of bench step run in one process")
    from acc_megatron.bench.csv_file import check_writable
    from acc_megatron.bench.step import bench_step

    check_writable(csv_file)
    print_result(bench_step(recipe, rounds=rounds, csv_file=csv_file, say=_print_progress), as_json)


@bench.command()
def plan(
    steps: Annotated[int, typer.Option(min=1, help="Measured steps of each run; figures are medians over them.")] = 9,
    calibration_seconds: Annotated[float, typer.Option(help="Seconds of each calibration.")] = 10,
    csv_file: Annotated[Path, typer.Option("--csv", help="File to append rows to.")] = Path("runs/bench/plan.csv"),
    as_json: Json = False,
) -> None:
    """Predict steps of small runs from a calibration of this machine, and compare them with real steps."""
    import json

    from acc_megatron.bench.csv_file import check_writable
    from acc_megatron.bench.plan import bench_plan

    check_writable(csv_file)
    result = bench_plan(
        num_steps=steps, calibration_seconds=calibration_seconds, csv_file=csv_file, say=_print_progress
    )
    if as_json:
        print(json.dumps(result))
        return
    print("| run | processes | measured s | predicted s | error |\n|---|---:|---:|---:|---:|")
    for row in result["cases"]:
        seconds = f"{row['measured_seconds']:.3f} | {row['predicted_seconds']:.3f}"
        print(f"| {row['case']} | {row['processes']} | {seconds} | {row['error']:+.0%} |")
