"""Sums in a fixed order, so that two runs on the same machines and layout have the same bits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# The first value is set if the variable is unset. Each library reads its variable when it is first used.
# CUBLAS: https://docs.nvidia.com/cuda/cublas/#results-reproducibility; NVTE: Transformer Engine's envvars page;
# NCCL: the values that Megatron-LM accepts for its own deterministic mode; the order of a tree can change.
VARIABLES: dict[str, tuple[str, ...]] = {
    "CUBLAS_WORKSPACE_CONFIG": (":4096:8", ":16:8"),
    "NVTE_ALLOW_NONDETERMINISTIC_ALGO": ("0",),
    "NCCL_ALGO": ("Ring", "CollnetDirect", "CollnetChain", "^NVLS"),
}


@contextmanager
def deterministic(is_wanted: bool) -> Iterator[None]:
    """Make torch, cuBLAS, Transformer Engine and NCCL deterministic until the context ends.

    Enter it before CUDA starts. torch raises RuntimeError in an operation that has no deterministic form.
    """
    if not is_wanted:
        yield
        return
    import torch  # here, because the checks of settings read VARIABLES without torch

    before = {name: os.environ.get(name) for name in VARIABLES}
    switches: Any = torch.utils.deterministic  # a module whose attributes are properties
    fills = switches.fill_uninitialized_memory
    was_on = torch.are_deterministic_algorithms_enabled()
    for name, accepted in VARIABLES.items():
        os.environ.setdefault(name, accepted[0])
    torch.use_deterministic_algorithms(True)
    switches.fill_uninitialized_memory = False  # costs a write of every new tensor, and changes no sum
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_on)
        switches.fill_uninitialized_memory = fills
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
