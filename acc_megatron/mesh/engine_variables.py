"""Variables that Transformer Engine reads when it is imported."""

import os
from collections.abc import Sequence

from acc_megatron.errors import ConfigError

OFFLOAD = "NVTE_CPU_OFFLOAD_V1"


def offload_modules_only(modules: Sequence[str]) -> None:
    """Keep weights on the GPU when modules are offloaded, as megatron-core 0.19.2 requires.

    Call it before Transformer Engine is imported. Raises ConfigError if the variable has another value.
    """
    if not modules:
        return
    if os.environ.setdefault(OFFLOAD, "1") != "1":
        raise ConfigError(
            f"memory.offload_modules needs the environment variable {OFFLOAD}=1, it is {os.environ[OFFLOAD]!r}: "
            f"Transformer Engine would offload weights too; run 'unset {OFFLOAD}'"
        )
