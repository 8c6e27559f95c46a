"""The verbs doctor and quickstart."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from acc_megatron.cli.options import Json, Out, Overrides, say_next

verbs = typer.Typer()


@verbs.command(short_help="Check this machine and its packages.")
def doctor(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option(help="Also check a job with this recipe.")] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="Ranks of that job. Default: the smallest number."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what is present, missing or wrong, with its effect and fix; exits with 1 if the job cannot run."""
    from acc_megatron.config import load_config
    from acc_megatron.doctor.examine import examine
    from acc_megatron.doctor.finding import print_findings

    findings = examine(load_config(config, overrides or []) if config else None, gpus=gpus)
    print_findings(findings, as_json)
    if any(finding.stops_the_job for finding in findings):
        sys.exit(1)
    if config:
        say_next("train", config, *overrides or [])
    else:
        say_next("selftest", "--quick")


@verbs.command(short_help="Run the whole pipeline on a tiny model.")
def quickstart(
    out: Out = Path("runs/quickstart"),
    examples: Annotated[Path, typer.Option(help="The examples folder of a checkout.")] = Path("examples"),
    count: Annotated[int, typer.Option(help="Number of trajectories per agent.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of agents and training.")] = 0,
    model: Annotated[Literal["moe", "dense"], typer.Option(help="A model with experts, or one without.")] = "moe",
    as_json: Json = False,
) -> None:
    """Run the whole pipeline on a tiny model: agents, compile, convert, train, resume, export, eval."""
    from acc_megatron.quickstart import run, summary_text

    summary = run(out, examples, count=count, seed=seed, model=model)
    print(json.dumps(summary) if as_json else summary_text(summary, out))
    say_next("inspect", out / "dataset", "--doc", 0)
