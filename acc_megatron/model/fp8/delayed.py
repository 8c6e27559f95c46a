"""Delayed scaling: one scale per tensor, from the largest values of previous steps."""

from typing import TYPE_CHECKING, Any

from acc_megatron.config import Config, Fp8Config
from acc_megatron.errors import ConfigError
from acc_megatron.model.fp8.recipe import Format, Fp8Recipe, TensorRole

if TYPE_CHECKING:
    import torch


class DelayedScaling(Fp8Recipe):
    """Transformer Engine's DelayedScaling."""

    megatron_name = "delayed"
    engine_class = "DelayedScaling"
    # Megatron 0.19.2 also passes override_linear_precision, which Transformer Engine 2.20 no longer has and ignores
    engine_arguments: tuple[str, ...] = (
        "margin",
        "fp8_format",
        "amax_compute_algo",
        "amax_history_len",
        "fp8_dpa",
        "fp8_mha",
    )
    default_format: Format = "hybrid"
    alignment_tokens = alignment_dim = 16
    min_capability, hardware = 8.9, "Ada or Hopper"
    has_history = True

    def transformer_fields(self, fp8: Fp8Config) -> dict[str, Any]:
        """Return the length of the history and which of its values counts."""
        return {"fp8_amax_history_len": fp8.amax_history_steps, "fp8_amax_compute_algo": fp8.amax_choice}

    def check(self, config: Config) -> None:
        """The history is updated for all layers at once and once per forward pass."""
        for key in ("bf16_layers_at_start", "bf16_layers_at_end"):
            if getattr(config.fp8, key):
                raise ConfigError(
                    f"fp8.{key} does not work with train.precision = {config.train.precision!r}, which keeps a history "
                    "for all layers"
                )
        recomputed = {"layernorm", "moe_act"} & set(config.memory.recompute_modules)
        if config.memory.recompute == "selective" and recomputed:
            raise ConfigError(
                f"memory.recompute_modules: {min(recomputed)!r} does not work with train.precision = "
                f"{config.train.precision!r}"
            )

    def quantise(
        self,
        matrix: "torch.Tensor",
        role: TensorRole,
        dtype: "torch.dtype",
        *,
        along: int,
        scale: "torch.Tensor | None",
    ) -> "torch.Tensor":
        """Round under the given scale."""
        from acc_megatron.model.fp8.scaling import round_trip

        assert scale is not None
        return round_trip(matrix.float(), scale, dtype)
