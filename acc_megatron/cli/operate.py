"""The verbs of the whole road: quickstart."""

from pathlib import Path
from typing import Annotated

import typer

from acc_megatron.cli.options import Out

verbs = typer.Typer()


@verbs.command(short_help="The whole road on a tiny model.")
def quickstart(
    out: Out = Path("runs/quickstart"),
    examples: Annotated[Path, typer.Option(help="The examples folder of a checkout.")] = Path("examples"),
    count: Annotated[int, typer.Option(help="Trajectories of each agent.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of agents and training.")] = 0,
) -> None:
    """The whole road on a tiny model: agents, compile, convert, train on 2 processes, resume, export, eval, report."""
    from acc_megatron.quickstart import run

    run(out, examples, count=count, seed=seed)
