"""The group `acc-megatron bench`: measurements that print figures and append rows to a CSV file."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

bench = typer.Typer(no_args_is_help=True, help="Measure; each run appends rows with machine and versions to a CSV.")


@bench.callback()
def _group() -> None:
    """Keeps `bench` a group while it has a single subcommand."""


@bench.command()
def data(
    megabytes: Annotated[float, typer.Option(help="Generated input of the comparison.")] = 20,
    rounds: Annotated[int, typer.Option(help="Rounds; figures are medians.")] = 3,
    workers: Annotated[int, typer.Option(help="Processes of both convert and Megatron's path.")] = 2,
    engine: Annotated[str, typer.Option(help="auto, tiktoken or gigatoken.")] = "auto",
    curve: Annotated[str, typer.Option(help="Input sizes in MB of the memory curve; '' for none.")] = "10,100",
    csv_file: Annotated[Path, typer.Option("--csv", help="File that rows are appended to.")] = Path(
        "runs/bench/data.csv"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """`convert` against Megatron's per-document path and against its bare tokenizer, on generated documents."""
    from acc_megatron.bench.data import bench_data

    with tempfile.TemporaryDirectory() as folder:
        result = bench_data(
            Path(folder),
            megabytes=megabytes,
            rounds=rounds,
            workers=workers,
            engine=engine,
            curve_megabytes=[float(size) for size in curve.split(",") if size],
            csv_file=csv_file,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    print(json.dumps(result) if as_json else "\n".join(f"{key}: {value}" for key, value in result.items()))
