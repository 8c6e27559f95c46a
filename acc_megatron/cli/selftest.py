"""The verb selftest."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from acc_megatron.cli.options import Out

verbs = typer.Typer()


@verbs.command(short_help="Prove kernels, layouts and restarts on these GPUs.")
def selftest(
    out: Out = Path("runs/selftest"),
    quick: Annotated[bool, typer.Option("--quick", help="The smallest form of each check.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Run this check only; repeatable.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes without torchrun. Default: one for each GPU, or one.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the results.")] = None,
) -> None:
    """Run every check on all GPUs, with or without torchrun, and print a table; exits with 1 if a check fails.

    The folder must be one that every node sees.
    """
    from acc_megatron.mesh.torchrun_environment import is_rank_zero
    from acc_megatron.selftest.report import passed, table_lines
    from acc_megatron.selftest.run import run_selftest

    results = run_selftest(out, is_quick=quick, only=only or [], processes=processes, json_file=json_file)
    if is_rank_zero():
        print("\n".join(table_lines(results)))
    sys.exit(0 if passed(results) else 1)
