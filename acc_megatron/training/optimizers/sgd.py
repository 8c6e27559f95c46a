"""SGD without momentum, for tests of exactness: AdamW would hide a wrong scale of the gradients."""

from typing import Any

from acc_megatron.config import OptimizerConfig


class Sgd:
    """Plain stochastic gradient descent."""

    state_bytes_per_parameter = 0
    supports_distributed_optimizer = False

    def megatron_fields(self, settings: OptimizerConfig) -> dict[str, Any]:
        """Return Megatron's fields of SGD."""
        return {"optimizer": "sgd", "sgd_momentum": 0.0}

    def prepare_cpu(self, *, is_narrow: bool = False) -> None:
        """Nothing to prepare: Megatron uses torch's SGD everywhere."""

    def finish(self, optimizer: Any, settings: OptimizerConfig) -> None:
        """Replace the function that allocates state before a checkpoint is loaded: Megatron sets it to None here."""
        for part in optimizer.chained_optimizers:
            part.init_state_fn = lambda *_: None
