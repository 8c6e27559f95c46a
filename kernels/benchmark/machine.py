"""What a figure must be read with: the state of the GPU and the commit of this package."""

import subprocess
from pathlib import Path

GPU_FIELDS = "driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu"


def gpu_state() -> str:
    """Driver, clocks, power and temperature of the first GPU as nvidia-smi gives them; empty without nvidia-smi."""
    return _output("nvidia-smi", "--id=0", f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader")


def commit() -> str:
    """The commit of the checkout, marked if files differ from it; empty if the package is not in a checkout."""
    folder = str(Path(__file__).resolve().parent)
    head = _output("git", "-C", folder, "rev-parse", "HEAD")
    is_changed = head and _output("git", "-C", folder, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if is_changed else head


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
