"""The verbs of `acc-megatron`, in the order of the pipeline; only the verbs that need torch import it."""

from typing import Annotated

import typer

from acc_megatron import __version__
from acc_megatron.cli import compile, config, convert, doctor, evaluate, plan, reason, selftest, show, train
from acc_megatron.cli.analyze import analyze
from acc_megatron.cli.bench import bench
from acc_megatron.cli.launch import launch

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="From agent trajectories to a trained long-context model. Results go to stdout, progress to stderr.",
    epilog="Exit codes: 0 success; 1 verify found damage, doctor found that the job cannot run, a check of selftest "
    "failed, or a job of launch or quickstart failed; 2 an error that you can fix; 3 too many unreadable rows; 21 a "
    "loss or gradient is not finite; 22 too many spikes; 23 a hang. Under torchrun these are the codes of the ranks.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"acc-megatron {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the verb."""


for group in (compile, reason, convert, show, config, plan, train, evaluate, doctor, selftest):
    app.add_typer(group.verbs)
app.add_typer(analyze, name="analyze", short_help="Show what training changed inside a model.")
app.add_typer(launch, name="launch", short_help="Run an experiment on this machine, SLURM or Kubernetes.")
app.add_typer(bench, name="bench", short_help="Measure kernels, data preparation or a training step.")
