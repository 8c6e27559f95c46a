"""The verbs of the whole road: doctor, quickstart."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from acc_megatron.cli.options import Json, Out, Overrides

verbs = typer.Typer()


@verbs.command(short_help="What is present, missing or wrong here.")
def doctor(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option(help="Also check the job of this recipe.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Ranks of that job; by default the fewest it needs.")] = None,
    as_json: Json = False,
) -> None:
    """What is present, missing or wrong, the effect of each and the mend; exits 1 when the job cannot run."""
    from acc_megatron.config import load_config
    from acc_megatron.doctor.examine import examine
    from acc_megatron.doctor.finding import print_findings

    findings = examine(load_config(config, overrides or []) if config else None, gpus=gpus)
    print_findings(findings, as_json)
    sys.exit(1 if any(finding.stops_the_job for finding in findings) else 0)


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
