"""The machine and the package versions, which every measured figure must be read with."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "acc-megatron", "numpy", "pyarrow", "tiktoken", "gigatoken", "tokenizers", "transformers", "torch", "triton",
    "megatron-core",
)  # fmt: skip


def machine(*, gpu: str = "") -> dict[str, str]:
    """The machine and the package versions, which every figure must be read with. `gpu` is the name of the GPU used."""
    name = f"{platform.node()} {_processor()} x {os.cpu_count()}"
    return {
        "machine": f"{name}, {gpu}" if gpu else name,
        "versions": " ".join([f"python={platform.python_version()}", *map(_version, PACKAGES)]),
    }


def _version(package: str) -> str:
    try:
        return f"{package}={version(package)}"
    except PackageNotFoundError:
        return f"{package}=absent"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
