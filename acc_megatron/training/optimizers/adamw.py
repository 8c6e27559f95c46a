"""AdamW: Transformer Engine's fused form on GPU, torch operations with the same state layout on CPU."""

from typing import Any

from acc_megatron.config import OptimizerConfig


class AdamW:
    """AdamW (arXiv 1711.05101)."""

    state_bytes_per_parameter = 8  # two float32 moments
    supports_distributed_optimizer = True

    def megatron_fields(self, settings: OptimizerConfig) -> dict[str, Any]:
        """Return Megatron's fields of AdamW."""
        return {
            "optimizer": "adam",
            "adam_beta1": settings.adam_beta1,
            "adam_beta2": settings.adam_beta2,
            "adam_eps": settings.adam_eps,
        }

    def prepare_cpu(self, *, is_narrow: bool = False) -> None:
        """Replace Megatron's Adam by a CPU form whose state the distributed optimizer can save."""
        from acc_megatron.training.optimizers.cpu_adamw import FusedLayoutAdamW, install_cpu_adamw
        from acc_megatron.training.optimizers.narrow_adamw import NarrowAdamW

        install_cpu_adamw(NarrowAdamW if is_narrow else FusedLayoutAdamW)

    def finish(self, optimizer: Any, settings: OptimizerConfig) -> None:
        """Protect tensors of 0 from the scales of Transformer Engine; without it, let the CPU form store remainders."""
        from acc_megatron.training.optimizers.narrow_adamw import NarrowAdamW
        from acc_megatron.training.optimizers.zero_tensors import keep_zeros

        for part in getattr(optimizer, "chained_optimizers", [optimizer]):
            inner = getattr(part, "optimizer", None)
            keep_zeros(inner)
            if isinstance(inner, NarrowAdamW):
                inner.store_param_remainders = settings.master_weights == "remainders"
