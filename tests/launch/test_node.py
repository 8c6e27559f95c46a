"""The program of a training node: its rank, its checks, and a stop that waits for the checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import ROOT, free_port, run_command

from acc_megatron.launch.all_reduce_check import bus_gb_per_second
from acc_megatron.launch.jobs import build_jobs
from acc_megatron.launch.load_experiment import load_experiment
from acc_megatron.launch.node import EXIT_STOPPED, EXIT_UNFIT, find_place
from acc_megatron.launch.node_health import check_node, judge
from acc_megatron.launch.targets.kubernetes_objects import RECIPE_FOLDER, job_object
from acc_megatron.observe.metrics import read_steps


def test_a_node_finds_its_rank_on_slurm_in_a_pod_and_on_a_single_machine() -> None:
    slurm = {"PET_NNODES": "4", "PET_MASTER_ADDR": "10.0.0.1", "PET_MASTER_PORT": "12345"}
    place = find_place(slurm | {"SLURM_NODEID": "3", "SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": "2"})
    assert (place.node, place.num_nodes, place.master_address, place.master_port) == (3, 4, "10.0.0.1", 12345)
    assert place.attempt == "77_2"
    pod = find_place(slurm | {"PET_NODE_RANK": "1"})
    assert (pod.node, pod.attempt) == (1, os.uname().nodename)
    alone = find_place({})
    assert (alone.node, alone.num_nodes, alone.master_address) == (0, 1, "127.0.0.1") and alone.master_port > 0
    with pytest.raises(SystemExit, match="PET_MASTER_ADDR"):
        find_place({"PET_NNODES": "2"})


def test_problems_of_gpus_are_listed_with_their_numbers() -> None:
    good = "".join(f"{index}, 81559, 4, 0\n" for index in range(8))
    assert judge(good, 8, 70) == []
    assert judge(good.replace(", 0\n", ", [N/A]\n"), 8, 70) == [], "without ECC"
    assert judge(good, 9, 70) == ["9 GPUs expected, 8 found; drain the node"]
    table = good.replace("3, 81559, 4, 0", "3, 81559, 40000, 0").replace("5, 81559, 4, 0", "5, 81559, 4, 2")
    busy, broken = judge(table, 8, 70)
    assert busy.startswith("GPU 3 has 40.6 GiB free of 79.6, but 70 are required")
    assert broken.startswith("GPU 5 has 2 uncorrected memory errors")


def test_a_node_without_a_working_driver_fails_its_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert check_node(0, 0) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "nvidia-smi is not on PATH" in check_node(8, 70)[0]
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'Unable to determine the device handle'; exit 9\n")
    script.chmod(0o755)
    assert check_node(8, 70) == ["nvidia-smi failed: Unable to determine the device handle; drain the node"]
    node = [sys.executable, "-m", "acc_megatron.launch.node", "--processes", "8", "--run-dir", "r", "--logs", "l"]
    done = run_command([*node, "--gpus", "8", "--", "train", "x"], PATH=str(tmp_path))
    assert done.returncode == EXIT_UNFIT and "nvidia-smi failed" in done.stderr


def test_the_rate_of_an_all_reduce_is_the_rate_of_one_link() -> None:
    # 2 ranks: each sends half the buffer, then half the sum; 8 ranks: 14 eighths
    assert bus_gb_per_second(10**9, 1.0, 2) == pytest.approx(1.0)
    assert bus_gb_per_second(10**9, 0.5, 8) == pytest.approx(3.5)


STOPPABLE = """
import sys, time
from pathlib import Path
from acc_megatron.launch.jobs import build_jobs
from acc_megatron.launch.load_experiment import load_experiment
from acc_megatron.launch.node import StopSignal, train
program = "import sys, time; from pathlib import Path; file = Path(sys.argv[1]); time.sleep(1); "
program += "file.unlink(missing_ok=True);" + sys.argv[2]
stop, file = StopSignal(), Path(sys.argv[1])
print("ready", flush=True)
sys.exit(train([sys.executable, "-c", program, str(file)], stop, file, float(sys.argv[3])))
"""
OBEYS = "\nwhile not file.exists(): time.sleep(0.05)\nfile.with_name('saved').touch()"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_creates_the_stop_file_and_waits_for_the_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", STOPPABLE, str(tmp_path / "stop"), OBEYS, "60"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        os.kill(process.pid, number)  # the program is still starting, and removes an older stop file
        assert process.wait(timeout=60) == EXIT_STOPPED
    finally:
        process.kill()
    assert (tmp_path / "saved").exists() and not (tmp_path / "stop").exists()


def test_a_run_that_does_not_stop_is_killed_after_its_grace_period(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", STOPPABLE, str(tmp_path / "stop"), "\ntime.sleep(600)", "2"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGUSR1)
        assert process.wait(timeout=60) == EXIT_STOPPED
    finally:
        process.kill()


@pytest.mark.slow
@pytest.mark.distributed
def test_the_pods_of_a_manifest_train_as_two_processes_on_this_machine(
    recipe: Path, dataset: Path, tmp_path: Path
) -> None:
    """Run the command of each pod in its environment, except for what the cluster provides."""
    (tmp_path / "experiment.toml").write_text(f"""
name = "pods"
out = "out"
workdir = "{tmp_path}"
python = "{sys.executable}"
[train]
recipe = "{recipe}"
dataset = "{dataset}"
nodes = 2
processes_per_node = 1
device = "cpu"
[environment]
OMP_NUM_THREADS = "1"
GLOO_SOCKET_IFNAME = "lo"
[kubernetes]
image = "registry.example/acc:1"
volumes = {{data = "{tmp_path}"}}
""")
    loaded = load_experiment(tmp_path / "experiment.toml")
    [job] = build_jobs(loaded, recipe=f"{RECIPE_FOLDER}/{recipe.name}")
    pod = json.loads(json.dumps(job_object(loaded, job)))["spec"]["template"]["spec"]["containers"][0]
    assert pod["command"][-3] == f"{RECIPE_FOLDER}/{recipe.name}"
    command = [word.replace(RECIPE_FOLDER, str(recipe.parent)) for word in pod["command"]]  # the mounted ConfigMap
    given = {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port())}  # the Service, a port nobody has
    pods = []
    for index in range(2):
        own = {
            entry["name"]: entry.get("value", str(index)) for entry in pod["env"]
        } | given  # the only field is the index
        log = (tmp_path / f"pod{index}.log").open("w")
        pods.append(
            subprocess.Popen(command, env=os.environ | own, cwd=pod["workingDir"], stderr=log, start_new_session=True)
        )
    try:
        end = time.monotonic() + 240
        while any(process.poll() is None for process in pods) and time.monotonic() < end:
            time.sleep(0.2)
        logs = "\n".join((tmp_path / f"pod{index}.log").read_text() for index in range(2))
        assert [process.poll() for process in pods] == [0, 0], logs[-4000:]
    finally:
        for process in pods:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert len(read_steps(tmp_path / "out" / "run")) >= 3
    assert "ring over 2 ranks" in logs
    names = {path.name for path in (tmp_path / "out" / "logs").glob("*/rank_*")}
    assert names == {f"rank_{rank:05d}.{ending}" for rank in range(2) for ending in ("out", "err")}
