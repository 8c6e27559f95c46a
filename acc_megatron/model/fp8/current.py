"""Current scaling: one scale per tensor, from its own largest value."""

from typing import TYPE_CHECKING

from acc_megatron.model.fp8.recipe import Format, Fp8Recipe, TensorRole

if TYPE_CHECKING:
    import torch


class CurrentScaling(Fp8Recipe):
    """Transformer Engine's Float8CurrentScaling."""

    megatron_name = "tensorwise"
    engine_class = "Float8CurrentScaling"
    engine_arguments: tuple[str, ...] = ("fp8_format", "fp8_dpa")
    default_format: Format = "hybrid"
    alignment_tokens = alignment_dim = 16
    min_capability, hardware = 8.9, "Ada or Hopper"

    def quantise(
        self,
        matrix: "torch.Tensor",
        role: TensorRole,
        dtype: "torch.dtype",
        *,
        along: int,
        scale: "torch.Tensor | None",
    ) -> "torch.Tensor":
        """Round under the scale that maps the tensor's largest value to the format's largest value."""
        from acc_megatron.model.fp8.scaling import round_trip, tensor_scale

        matrix = matrix.float()
        amax = matrix.abs().amax() if matrix.numel() else matrix.new_zeros(())
        return round_trip(matrix, tensor_scale(amax, dtype), dtype)
