"""What the training stack must know about an optimizer."""

from typing import Any, Protocol

from acc_megatron.config import OptimizerConfig


class OptimizerKind(Protocol):
    """One optimizer of Megatron; implementations import torch only inside of methods."""

    state_bytes_per_parameter: int  # float32 state, without float32 copies of bfloat16 weights
    supports_distributed_optimizer: bool

    def megatron_fields(self, settings: OptimizerConfig) -> dict[str, Any]:
        """Return the fields of Megatron's OptimizerConfig that select and configure this optimizer."""

    def prepare_cpu(self, *, is_narrow: bool = False) -> None:
        """Make Megatron able to build this optimizer without CUDA; called before it is built.

        `is_narrow`: its state or the gradients are not float32.
        """

    def finish(self, optimizer: Any, settings: OptimizerConfig) -> None:
        """Adjust Megatron's optimizer after it is built."""
