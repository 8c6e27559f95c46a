"""The group `acc-megatron bench`: measurements that print figures and append rows to a CSV file."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from acc_megatron.cli.options import Json, Overrides, Recipe, print_result

bench = typer.Typer(no_args_is_help=True, help="Measure; each run appends rows with machine and versions to a CSV.")


def _folder_of_runs(real: str) -> Path | None:
    """The folder that --real names; None, said in a line, where it is not there."""
    if real and not Path(real).is_dir():
        print(f"no folder {real}: no real trajectories are measured (--real)", file=sys.stderr)
    return Path(real) if real and Path(real).is_dir() else None


@bench.command()
def data(
    megabytes: Annotated[float, typer.Option(help="Generated input of the comparison.")] = 20,
    rounds: Annotated[int, typer.Option(help="Rounds; figures are medians.")] = 3,
    workers: Annotated[int, typer.Option(help="Processes of both convert and Megatron's path.")] = 2,
    engine: Annotated[str, typer.Option(help="auto, tiktoken or gigatoken.")] = "auto",
    curve: Annotated[str, typer.Option(help="Input sizes in MB of the memory curve; '' for none.")] = "10,100",
    real: Annotated[
        str, typer.Option(help="Folder of real trajectories, left out where it is not there; '' for none.")
    ] = "../shared/data",
    csv_file: Annotated[Path, typer.Option("--csv", help="File that rows are appended to.")] = Path(
        "runs/bench/data.csv"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """`convert` against Megatron's per-document path and its bare tokenizer, on generated and on real documents."""
    from acc_megatron.bench.data import bench_data

    with tempfile.TemporaryDirectory() as folder:
        result = bench_data(
            Path(folder),
            megabytes=megabytes,
            rounds=rounds,
            workers=workers,
            engine=engine,
            curve_megabytes=[float(size) for size in curve.split(",") if size],
            real=_folder_of_runs(real),
            csv_file=csv_file,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    print(json.dumps(result) if as_json else "\n".join(f"{key}: {value}" for key, value in result.items()))


@bench.command()
def kernels(
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of the sequence.")] = 8192,
    supervised_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share that is supervised.")] = 0.04,
    vocab: Annotated[int, typer.Option(min=1, help="Words of this rank's shard.")] = 18_992,
    hidden: Annotated[int, typer.Option(min=1, help="Hidden size.")] = 256,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; percentiles are over these.")] = 5,
    csv: Annotated[Path | None, typer.Option(help="Append the rows to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the rows into this file.")] = None,
    costs: Annotated[bool, typer.Option("--costs", help="Only the arithmetic and memory at 131,072 tokens.")] = False,
    aot: Annotated[bool, typer.Option("--aot", help="Compile for sm_80, sm_90, sm_100; needs no GPU.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time and memory of the masked loss against plain code and peers; or what the compiler makes of the kernels."""
    from acc_megatron.bench.kernels import run_aot, run_bench, run_costs

    if aot:
        run_aot(as_json)
    elif costs:
        run_costs()
    else:
        share = supervised_share
        run_bench(tokens, share, vocab, hidden, dtype, repeats=repeats, csv=csv, plot=plot, as_json=as_json)


@bench.command()
def step(
    config: Recipe,
    overrides: Overrides = None,
    balance: Annotated[bool, typer.Option("--balance", help="How evenly microbatches keep ranks busy.")] = False,
    data_parallel: Annotated[int, typer.Option(min=1, help="With --balance: ranks that wait for one another.")] = 8,
    global_batch_rows: Annotated[int, typer.Option(min=1, help="With --balance: rows of a global batch.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each loop; figures are medians.")] = 7,
    csv_file: Annotated[Path, typer.Option("--csv", help="File that rows are appended to.")] = Path(
        "runs/bench/step.csv"
    ),
    as_json: Json = False,
) -> None:
    """Time of a training step against a bare megatron-core loop and transformers; or how evenly rows are dealt."""
    from acc_megatron.config import load_config

    recipe = load_config(config, overrides or [])
    if balance:
        from acc_megatron.bench.balance import balance as run

        print_result(run(recipe, data_parallel=data_parallel, global_batch_rows=global_batch_rows), as_json)
        return
    from acc_megatron.bench.step import bench_step

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    print_result(bench_step(recipe, rounds=rounds, csv_file=csv_file, say=say), as_json)
