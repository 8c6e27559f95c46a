"""The verb selftest."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from acc_megatron.cli.options import Json, Out, say_next

verbs = typer.Typer()


@verbs.command(short_help="Prove kernels, layouts and restarts on these GPUs.")
def selftest(
    out: Out = Path("runs/selftest"),
    quick: Annotated[bool, typer.Option("--quick", help="The smallest form of each check.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Run this check only; repeatable.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes without torchrun. Default: one for each GPU, or one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run every check on all GPUs, with or without torchrun, and print a table; exits with 1 if a check fails.

    The folder must be one that every node sees; result.json in it has what --json prints.
    """
    from acc_megatron.mesh.torchrun_environment import is_rank_zero
    from acc_megatron.selftest.run import run_selftest

    finished = run_selftest(out, is_quick=quick, only=only or [], processes=processes)
    if is_rank_zero():
        print(json.dumps(finished.as_json()) if as_json else "\n".join(finished.table_lines()))
        if finished.passed:
            say_next("calibrate", "--out", "machine.toml")
    sys.exit(0 if finished.passed else 1)
