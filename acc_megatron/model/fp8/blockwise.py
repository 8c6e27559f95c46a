"""Block scaling: weights in blocks of 128 x 128, other operands in blocks of 128 (arXiv 2412.19437, section 3.3.2)."""

from typing import TYPE_CHECKING

from acc_megatron.model.fp8.recipe import Format, Fp8Recipe, TensorRole

if TYPE_CHECKING:
    import torch

BLOCK = 128


class BlockScaling(Fp8Recipe):
    """Transformer Engine's Float8BlockScaling."""

    megatron_name = "blockwise"
    engine_class = "Float8BlockScaling"
    engine_arguments: tuple[str, ...] = ("fp8_format",)
    default_format: Format = "e4m3"
    alignment_tokens = alignment_dim = 16
    min_capability, hardware = 9.0, "Hopper"

    def quantise(
        self,
        matrix: "torch.Tensor",
        role: TensorRole,
        dtype: "torch.dtype",
        *,
        along: int,
        scale: "torch.Tensor | None",
    ) -> "torch.Tensor":
        """Round each block under a power of two."""
        from acc_megatron.model.fp8.scaling import power_of_two_scale, round_trip_blocks

        block = (1, BLOCK) if along == 1 else (BLOCK, 1)
        return round_trip_blocks(
            matrix.float(), (BLOCK, BLOCK) if role == "weight" else block, dtype, power_of_two_scale
        )
