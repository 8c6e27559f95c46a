"""The group `acc-megatron launch`: one experiment file to this machine, to SLURM or to Kubernetes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acc_megatron.cli.options import Json, Overrides, print_result

if TYPE_CHECKING:
    from acc_megatron.launch.experiment import Loaded

launch = typer.Typer(no_args_is_help=True, help="Launch an experiment file; then its status, logs and end.")

File = Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="A TOML file, as examples/experiment.toml.")]
Stages = Annotated[
    str | None, typer.Option(help="Some of compile,convert,train,export,eval. Default: all that the file describes.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write what would be submitted, and say where.")]


def _load(file: Path, overrides: list[str] | None, stages: str | None = None) -> "Loaded":
    from acc_megatron.launch.experiment import load_experiment

    return load_experiment(file, overrides or [], stages)


def _show(result: dict[str, Any], as_json: bool) -> None:
    """One JSON object, or a line a stage."""
    if as_json:
        print_result(result, True)
        return
    for key, value in result.items():
        if not isinstance(value, dict):
            print(f"{key}: {value}")
            continue
        for name, item in value.items():
            print(f"{name:<12} {' '.join(item) if isinstance(item, list) else item}")


@launch.command()
def local(
    experiment: File, overrides: Overrides = None, stages: Stages = None, dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Run the stages on this machine, one after the other."""
    from acc_megatron.launch.submit import launch_local

    _show(launch_local(_load(experiment, overrides, stages), dry_run=dry_run), as_json)


@launch.command()
def slurm(
    experiment: File, overrides: Overrides = None, stages: Stages = None, dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Submit the stages as batch jobs that wait for one another."""
    from acc_megatron.launch.submit import launch_slurm

    _show(launch_slurm(_load(experiment, overrides, stages), dry_run=dry_run), as_json)


@launch.command()
def kubernetes(
    experiment: File, overrides: Overrides = None, stages: Stages = None, dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Create the stages as jobs, each when the one before has ended well; waits for all but the last."""
    from acc_megatron.launch.kubernetes import launch_kubernetes

    _show(launch_kubernetes(_load(experiment, overrides, stages), dry_run=dry_run), as_json)


@launch.command()
def status(experiment: File, overrides: Overrides = None, as_json: Json = False) -> None:
    """The state of every stage of the last launch."""
    from acc_megatron.launch.watch import states

    _show({"states": states(_load(experiment, overrides))}, as_json)


@launch.command()
def logs(
    experiment: File,
    stage: Annotated[str, typer.Argument(metavar="[STAGE]", help="Whose log.")] = "train",
    overrides: Overrides = None,
    rank: Annotated[int | None, typer.Option(min=0, help="The log of one training process.")] = None,
) -> None:
    """Print the log of a stage, or of one rank of training, as the last start wrote it."""
    from acc_megatron.launch.watch import log_text

    sys.stdout.write(log_text(_load(experiment, overrides), stage, rank))


@launch.command()
def cancel(experiment: File, overrides: Overrides = None, as_json: Json = False) -> None:
    """End every stage of the last launch that has not ended."""
    from acc_megatron.launch.watch import cancel as run

    _show({"cancelled": run(_load(experiment, overrides))}, as_json)
