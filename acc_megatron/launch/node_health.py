"""Checks of a node before training, without torch: the number of GPUs, their free memory and their memory errors."""

import shutil
import subprocess

QUERY = "index,memory.total,memory.used,ecc.errors.uncorrected.volatile.total"
MIB_PER_GIB = 1024


def check_node(num_gpus: int, free_gib: float) -> list[str]:
    """Problems of this node's GPUs, one line each; a node that needs no GPU has none."""
    if num_gpus == 0:
        return []
    if shutil.which("nvidia-smi") is None:
        return [f"{num_gpus} GPUs expected, but nvidia-smi is not on PATH: install the driver, or give the pod GPUs"]
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return ["nvidia-smi did not answer within 60 s: the driver hangs; drain the node"]
    if done.returncode:
        return [f"nvidia-smi failed: {(done.stderr or done.stdout).strip()}; drain the node"]
    return judge(done.stdout, num_gpus, free_gib)


def judge(table: str, num_gpus: int, free_gib: float) -> list[str]:
    """Problems in nvidia-smi's lines of index, total and used MiB, uncorrected memory errors ('[N/A]' without ECC)."""
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines() if line.strip()]
    problems = [] if len(rows) >= num_gpus else [f"{num_gpus} GPUs expected, {len(rows)} found; drain the node"]
    for index, total, used, errors in rows:
        if errors.isdigit() and int(errors) > 0:
            problems.append(f"GPU {index} has {errors} uncorrected memory errors: reset it, or drain the node")
        free = (int(total) - int(used)) / MIB_PER_GIB
        if free < free_gib:
            problems.append(
                f"GPU {index} has {free:.1f} GiB free of {int(total) / MIB_PER_GIB:.1f}, but {free_gib:g} are "
                "required: end the process that nvidia-smi lists, or lower train.check_gpu_free_gib"
            )
    return problems
