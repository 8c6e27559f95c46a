"""MXFP8: blocks of 32 values under a power of two (OCP Microscaling Formats 1.0)."""

from typing import TYPE_CHECKING

from acc_megatron.config import Config
from acc_megatron.errors import ConfigError
from acc_megatron.model.fp8.recipe import Format, Fp8Recipe, TensorRole

if TYPE_CHECKING:
    import torch

BLOCK = 32


class Mxfp8(Fp8Recipe):
    """Transformer Engine's MXFP8BlockScaling.

    A parameter has two FP8 copies, so that it is gathered through the gradient buffer.
    """

    megatron_name = "mxfp8"
    engine_class = "MXFP8BlockScaling"
    engine_arguments: tuple[str, ...] = ("fp8_format", "fp8_dpa")
    default_format: Format = "e4m3"
    alignment_tokens = alignment_dim = 32
    min_capability, hardware = 10.0, "Blackwell"
    gathers_through_gradient_buffer = True

    def check(self, config: Config) -> None:
        """The gradient buffer cannot receive parameters while gradients are still in it."""
        if config.fp8.param_gather and config.parallel.overlap_param_gather:
            raise ConfigError(
                f"fp8.param_gather with train.precision = {config.train.precision!r} gathers through the gradient "
                "buffer, which parallel.overlap_param_gather would still be filling: set only one of the two"
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
        """Round each block under the power of two at which its largest value does not overflow."""
        from acc_megatron.model.fp8.scaling import mx_scale, round_trip_blocks

        return round_trip_blocks(matrix.float(), (1, BLOCK) if along == 1 else (BLOCK, 1), dtype, mx_scale)
