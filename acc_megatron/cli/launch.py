"""The group `acc-megatron launch`: run an experiment file on a target, then its status, logs and cancel."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from acc_megatron.cli.options import Json, Overrides, print_result, say_next
from acc_megatron.launch.load_experiment import load_experiment
from acc_megatron.launch.targets.registry import TARGETS
from acc_megatron.launch.targets.target import Target

launch = typer.Typer(no_args_is_help=True, help="Run an experiment file; then show its status and logs, or cancel it.")

File = Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="A TOML file such as examples/experiment.toml.")]
Jobs = Annotated[
    str | None,
    typer.Option(help="Comma-separated subset of compile,convert,train,export,eval. Default: all in the file."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write what would be submitted and print where.")]


def _show(result: dict[str, Any], as_json: bool) -> None:
    """One JSON object, or one line per job."""
    if as_json:
        print_result(result, True)
        return
    for key, value in result.items():
        if not isinstance(value, dict):
            print(f"{key}: {value}")
            continue
        for name, item in value.items():
            print(f"{name:<12} {' '.join(item) if isinstance(item, list) else item}")


def _add_verb(target: Target) -> None:
    @launch.command(name=target.name, help=target.summary)
    def verb(
        experiment: File, overrides: Overrides = None, jobs: Jobs = None, dry_run: DryRun = False, as_json: Json = False
    ) -> None:
        from acc_megatron.launch.launcher import launch as run

        _show(run(target, load_experiment(experiment, overrides or [], jobs), dry_run=dry_run), as_json)
        verb = target.name if dry_run else "status"
        say_next("launch", verb, experiment, *overrides or [], *(["--jobs", jobs] if dry_run and jobs else []))


for _target in TARGETS.values():
    _add_verb(_target)


@launch.command()
def status(experiment: File, overrides: Overrides = None, as_json: Json = False) -> None:
    """Print the state of every job of the last launch."""
    from acc_megatron.launch.launcher import states

    _show({"states": states(load_experiment(experiment, overrides or []))}, as_json)
    say_next("launch", "logs", experiment, "JOB", *overrides or [])


@launch.command()
def logs(
    experiment: File,
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="The job whose log to print.")] = "train",
    overrides: Overrides = None,
    rank: Annotated[int | None, typer.Option(min=0, help="Print the log of this training process instead.")] = None,
    as_json: Json = False,
) -> None:
    """Print the log of the last start of a job, or of one training process."""
    from acc_megatron.launch.launcher import log_text

    text = log_text(load_experiment(experiment, overrides or []), job, rank)
    if as_json:
        print_result({"job": job, "rank": rank, "log": text}, True)
    else:
        sys.stdout.write(text)


@launch.command()
def cancel(experiment: File, overrides: Overrides = None, as_json: Json = False) -> None:
    """End every job of the last launch that is still waiting or running."""
    from acc_megatron.launch.launcher import cancel as run

    _show({"cancelled": run(load_experiment(experiment, overrides or []))}, as_json)
