"""The program of one training node, the same on SLURM, Kubernetes and a laptop: check, start torchrun, save and stop.

`python -m acc_megatron.launch.node --processes 8 --run-dir RUN --logs LOGS -- train RECIPE KEY=VALUE...`

It runs torchrun as a child because torchrun does not forward SIGUSR1 and kills its workers 30 s after SIGTERM, which is
too short for a checkpoint. On either signal it writes the stop file of the run, which makes all ranks save the same
step, and waits for them. Exit codes: 0 the training is complete, 74 this node failed a check, 75 saved and stopped, so
start the job again; any other code is torchrun's.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from acc_megatron.common.network_ports import free_port
from acc_megatron.launch.node_health import check_node
from acc_megatron.optional import is_installed, missing_package
from acc_megatron.resilience.stop import STOP_FILE

EXIT_UNFIT = 74
EXIT_STOPPED = 75  # EX_TEMPFAIL: saved and stopped, start the job again
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Place:
    """The rank of this node in the job, where the nodes meet, and the id of this start of the job."""

    node: int
    num_nodes: int
    master_address: str
    master_port: int
    attempt: str


def find_place(environment: Mapping[str, str]) -> Place:
    """Read torchrun's PET_ variables, which Kubeflow and our scripts set; on SLURM the node rank is SLURM_NODEID."""
    number = environment.get("PET_NODE_RANK", environment.get("SLURM_NODEID", "0"))
    nodes = int(environment.get("PET_NNODES", "1"))
    if job := environment.get("SLURM_JOB_ID"):
        attempt = f"{job}_{environment.get('SLURM_RESTART_COUNT', '0')}"
    else:  # the name of a pod is new at every start
        attempt = socket.gethostname() if nodes > 1 else time.strftime("%Y%m%d_%H%M%S")
    address = environment.get("PET_MASTER_ADDR", "127.0.0.1" if nodes == 1 else "")
    if not address:
        raise SystemExit(f"error: PET_NNODES is {nodes}, so PET_MASTER_ADDR must be the host of node 0")
    return Place(int(number), nodes, address, int(environment.get("PET_MASTER_PORT", "0")) or free_port(), attempt)


def torchrun(place: Place, processes: int, *arguments: str) -> list[str]:
    """The torchrun command, with ranks in the order of the nodes: a rank stays on its node after a restart."""
    return [
        sys.executable, "-m", "torch.distributed.run",
        "--nnodes", str(place.num_nodes), "--node-rank", str(place.node), "--nproc-per-node", str(processes),
        "--master-addr", place.master_address, "--master-port", str(place.master_port),
        # this program handles SIGTERM and SIGUSR1: torchrun would kill its workers after 30 s
        "--signals-to-handle", "SIGINT",
        *arguments,
    ]  # fmt: skip


class StopSignal:
    """Notes SIGUSR1 and SIGTERM; processes started by `start` ignore both until they install handlers."""

    def __init__(self) -> None:
        self.when: float | None = None
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.when is None:
            self.when = time.monotonic()
            print(f"{signal.Signals(number).name}: asking the run to save and stop", file=sys.stderr, flush=True)

    @staticmethod
    def start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Start a command in a process group of its own."""
        return subprocess.Popen(command, start_new_session=True, preexec_fn=_ignore_signals)


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def train(command: Sequence[str], stop: StopSignal, stop_file: Path, grace_seconds: float) -> int:
    """Run torchrun to its end; returns its exit code, or EXIT_STOPPED if the run saved and stopped on request."""
    process, stopped = stop.start(command), False
    while (code := process.poll()) is None:
        if stop.when is not None:
            stop_file.parent.mkdir(parents=True, exist_ok=True)
            stop_file.touch()  # repeatedly: a run that is starting removes an older file
            if time.monotonic() > stop.when + grace_seconds:
                print(f"the run did not stop within {grace_seconds:.0f} s and is killed", file=sys.stderr)
                os.killpg(process.pid, signal.SIGKILL)
                return EXIT_STOPPED
        stopped = stopped or stop_file.exists()
        time.sleep(POLL_SECONDS)
    if stop.when is not None:
        stop_file.unlink(missing_ok=True)
    return EXIT_STOPPED if code == 0 and stopped else code


def main(arguments: Sequence[str] | None = None) -> int:
    """Check this node, run the all-reduce check, then train under torchrun; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m acc_megatron.launch.node", description=__doc__)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--logs", type=Path, required=True, help="log folder: one folder per start, one file per rank")
    parser.add_argument("--grace-seconds", type=float, default=600)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--gpu-free-gib", type=float, default=0)
    parser.add_argument("--ring-gb-per-second", type=float, help="run the all-reduce check, and fail below this rate")
    parser.add_argument("--selftest", choices=["quick", "full"], help="run acc-megatron selftest before the command")
    parser.add_argument("command", nargs="+", help="the arguments of acc-megatron")
    options = parser.parse_args(arguments)
    if not is_installed("torch"):
        print(f"error: node {socket.gethostname()}: {missing_package('torch', 'training')}", file=sys.stderr)
        return EXIT_UNFIT
    stop, place = StopSignal(), find_place(os.environ)
    problems = check_node(options.gpus, options.gpu_free_gib)
    if problems:
        print("\n".join(f"error: node {socket.gethostname()}: {line}" for line in problems), file=sys.stderr)
        return EXIT_UNFIT
    if options.ring_gb_per_second is not None and place.num_nodes * options.processes > 1:
        ring = ["-m", "acc_megatron.launch.all_reduce_check", str(options.ring_gb_per_second)]
        if stop.start(torchrun(place, options.processes, *ring)).wait():
            print("error: the all-reduce over all ranks failed: see the lines above", file=sys.stderr)
            return EXIT_UNFIT
    if options.selftest is not None:
        test = ["-m", "acc_megatron", "selftest", "--out", str(options.logs / "selftest")]
        test += ["--quick"] if options.selftest == "quick" else []
        if stop.start(torchrun(place, options.processes, *test)).wait():
            print(f"error: the selftest failed: see the table above and {options.logs}/selftest", file=sys.stderr)
            return EXIT_UNFIT
    if stop.when is not None:
        return EXIT_STOPPED
    logs = options.logs / place.attempt
    to_files = ["--log-dir", str(logs), "--redirects", "3", "--tee", "0:3", "--logs-specs", "acc_ranks"]
    training = torchrun(place, options.processes, *to_files, "-m", "acc_megatron", *options.command)
    where = f"node {place.node} of {place.num_nodes} on {socket.gethostname()}"
    print(f"{where}: one log per rank in {logs}", file=sys.stderr, flush=True)
    return train(training, stop, options.run_dir / STOP_FILE, options.grace_seconds)


if __name__ == "__main__":
    sys.exit(main())
