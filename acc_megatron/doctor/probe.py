"""Imports one package in a child process and prints facts about it.

A package that crashes, or that breaks packages imported after it, cannot stop the doctor.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from typing import Any

TIMEOUT_SECONDS = 300


def probe(name: str) -> dict[str, Any]:
    """Facts of a package, imported in a child process: `{"version": ...}` and more, or `{"error": one line}`."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "acc_megatron.doctor.probe", name],
            capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"its import did not end within {TIMEOUT_SECONDS} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        last = (done.stderr.strip().splitlines() or [f"its import ended with exit status {done.returncode}"])[-1]
        return {"error": last[:300]}
    return json.loads(lines[-1])


def _torch() -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {"version": torch.__version__, "cuda_build": torch.version.cuda, "devices": []}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            capability = torch.cuda.get_device_capability(index)
            name = torch.cuda.get_device_name(index)
            facts["devices"].append(
                {"name": name, "free_bytes": free, "total_bytes": total, "capability": list(capability)}
            )
        facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    return facts


def _megatron() -> dict[str, Any]:
    from acc_megatron.mesh import cpu_backend

    cpu_backend.install()
    import megatron.core
    from megatron.core.extensions import transformer_engine
    from megatron.core.models.gpt import gpt_layer_specs

    assert gpt_layer_specs.get_gpt_layer_local_spec
    return {"version": megatron.core.__version__, "has_te": bool(transformer_engine.HAVE_TE)}


def _transformer_engine() -> dict[str, Any]:
    import transformer_engine
    import transformer_engine.pytorch

    return {"version": transformer_engine.__version__}


def _apex() -> dict[str, Any]:
    """NVIDIA's apex, recognised by its functions: another project has its name on PyPI."""
    facts: dict[str, Any] = {"named_apex": importlib.util.find_spec("apex") is not None, "fused_adam": False}
    facts["fused_weight_gradient"] = importlib.util.find_spec("fused_weight_gradient_mlp_cuda") is not None
    with contextlib.suppress(Exception):
        facts["fused_adam"] = hasattr(importlib.import_module("apex.optimizers"), "FusedAdam")
    return facts


def _plain(name: str) -> dict[str, Any]:
    return {"version": getattr(importlib.import_module(name), "__version__", "")}


PROBES = {"torch": _torch, "megatron.core": _megatron, "transformer_engine": _transformer_engine, "apex": _apex}


def _main(name: str) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            facts = PROBES[name]() if name in PROBES else _plain(name)
    except Exception as error:
        facts = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    print(json.dumps(facts))


if __name__ == "__main__":
    _main(sys.argv[1])
