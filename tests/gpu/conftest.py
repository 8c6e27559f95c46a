"""The tests of the kernels on one GPU (`make test-gpu`), skipped without one.

TRITON_INTERPRET=1 runs small cases on CPU, to test these tests. Figures, with the GPU and the versions, go to
`build/gpu/FILE.json`.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

OUT = Path(__file__).parents[2] / "build" / "gpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available() or INTERPRETED:
        return
    absent = pytest.mark.skip(reason="torch finds no CUDA GPU; TRITON_INTERPRET=1 runs small cases on CPU")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(absent)


@pytest.fixture(scope="session")
def device() -> str:
    if not torch.cuda.is_available():
        from acc_megatron.kernels.masked_linear_cross_entropy import launch
        from acc_megatron.kernels.shared import triton_interpreter

        triton_interpreter.install()
        # the time of the interpreter grows with the number of tiles
        launch.FLOAT32 = launch.HOPPER
        return "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    return "cuda"


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Fill new tensors with NaN, so that an element that a kernel does not write is noticed."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def record(request: pytest.FixtureRequest, device: str) -> Iterator[Callable[..., None]]:
    """`record(case, **figures)` adds a row to the JSON file of the test file."""
    rows: list[dict[str, Any]] = []
    yield lambda case, **figures: rows.append({"case": case, **figures})
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{Path(request.node.path).stem.removeprefix('test_')}.json"
    path.write_text(json.dumps({**_machine(device), "rows": rows}, indent=1))


def _machine(device: str) -> dict[str, Any]:
    import triton

    versions = {"torch": torch.__version__, "triton": triton.__version__, "cuda": torch.version.cuda}
    if device == "cpu":
        return {"gpu": "none: Triton's interpreter on CPU", **versions}
    properties = torch.cuda.get_device_properties(0)
    query = "driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu"
    status = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return {"gpu": properties.name, "status": status.stdout.strip(), **versions}
