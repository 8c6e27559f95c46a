"""The command `acc-megatron`: one verb a step of the road; torch is imported only by the verbs that need it."""

import errno
import sys

import typer

from acc_megatron.cli import data, evaluate, operate, plan, train
from acc_megatron.cli.analyze import analyze
from acc_megatron.cli.bench import bench
from acc_megatron.cli.launch import launch
from acc_megatron.errors import AccError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="From agent trajectories to a trained long-context model. Results go to stdout, progress to stderr.",
    epilog="Exit codes: 0 done, 1 verify found damage, 2 a mistake you can mend, 3 too many unreadable rows, "
    "21 a loss or gradient is not a number, 22 too many spikes, 23 a hang. Under torchrun they are the ranks' own.",
)
# in the order of the road
for group in (data, plan, train, evaluate, operate):
    app.add_typer(group.verbs)
app.add_typer(analyze, name="analyze", short_help="What training changed inside a model.")
app.add_typer(launch, name="launch", short_help="Run an experiment here, on SLURM or on Kubernetes.")
app.add_typer(bench, name="bench", short_help="Measure a part of the product.")


# what a file system refuses and a user can mend; anything else is ours, and keeps its traceback
MENDABLE = {
    errno.EACCES: "no permission: run as its owner, or choose another path",
    errno.EPERM: "no permission: run as its owner, or choose another path",
    errno.EROFS: "the file system is read-only: choose another path",
    errno.EEXIST: "a file stands where a folder goes: choose another path",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another path",
    errno.ENAMETOOLONG: "the name is too long: choose another path",
    errno.ENOSPC: "the disk is full: free space, or choose another path",
    errno.EDQUOT: "the disk quota is used up: free space, or choose another path",
    errno.EFBIG: "the file would be larger than the limit (ulimit -f): raise it, or choose another path",
}


def main() -> None:
    """Run a verb; a mistake the user can mend becomes one line on stderr and its exit code."""
    try:
        app()
    except AccError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{MENDABLE[error.errno]}", file=sys.stderr)
        sys.exit(2)
