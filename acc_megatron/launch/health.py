"""Whether this node is fit to train: as many GPUs as promised, each free; no torch needed."""

import shutil
import subprocess

QUERY = "index,memory.total,memory.used,ecc.errors.uncorrected.volatile.total"
MIB_PER_GIB = 1024


def check_node(num_gpus: int, free_gib: float) -> list[str]:
    """What is wrong with this node's GPUs, a line each; nothing is asked of a node that shall have none."""
    if num_gpus == 0:
        return []
    if shutil.which("nvidia-smi") is None:
        return [
            f"{num_gpus} GPUs expected, but there is no nvidia-smi: is the driver there, and is the pod given GPUs?"
        ]
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return ["nvidia-smi did not answer within 60 s: the driver hangs; drain the node"]
    if done.returncode:
        return [f"nvidia-smi failed: {(done.stderr or done.stdout).strip()}; drain the node"]
    return judge(done.stdout, num_gpus, free_gib)


def judge(table: str, num_gpus: int, free_gib: float) -> list[str]:
    """Judge nvidia-smi's rows of index, total and used MiB, and uncorrected memory errors ('[N/A]' without ECC)."""
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines() if line.strip()]
    problems = [] if len(rows) >= num_gpus else [f"{len(rows)} GPUs of {num_gpus} expected; drain the node"]
    for index, total, used, errors in rows:
        if errors.isdigit() and int(errors) > 0:
            problems.append(f"GPU {index} has {errors} uncorrected memory errors: reset it, or drain the node")
        free = (int(total) - int(used)) / MIB_PER_GIB
        if free < free_gib:
            problems.append(
                f"GPU {index} has {free:.1f} GiB free of {int(total) / MIB_PER_GIB:.1f}, {free_gib:g} wanted: another "
                "process holds the rest (nvidia-smi names it), or lower train.check_gpu_free_gib"
            )
    return problems
