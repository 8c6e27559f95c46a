"""What the stack must know about an FP8 recipe."""

from typing import TYPE_CHECKING, Any, Literal, Protocol

from acc_megatron.config import Config, Fp8Config

if TYPE_CHECKING:
    import torch

Format = Literal["e4m3", "hybrid"]  # hybrid: e5m2 for gradients of outputs, e4m3 otherwise
TensorRole = Literal["input", "weight", "gradient"]


class Fp8Recipe(Protocol):
    """How the operands of a matrix product are scaled to eight bits; torch is imported only inside of `quantise`.

    Recipes derive from it: values and methods with a default need not be repeated.
    """

    megatron_name: str  # TransformerConfig.fp8_recipe
    engine_class: str  # in transformer_engine.common.recipe
    engine_arguments: tuple[str, ...]  # those that Megatron passes
    default_format: Format
    alignment_tokens: int  # the tokens of an expert are padded to a multiple of this
    alignment_dim: int  # every dim of a quantised matrix must be a multiple of this
    min_capability: float  # compute capability of the oldest GPU that supports it
    hardware: str  # names of these GPUs
    has_history: bool = False  # scales come from the largest values of previous steps
    gathers_through_gradient_buffer: bool = False  # FP8 parameters are gathered in the gradient buffer

    def transformer_fields(self, fp8: Fp8Config) -> dict[str, Any]:
        """Return the fields of TransformerConfig that only this recipe has."""
        return {}

    def check(self, config: Config) -> None:
        """Raise ConfigError for settings that this recipe does not support."""
        return None

    def quantise(
        self,
        matrix: "torch.Tensor",
        role: TensorRole,
        dtype: "torch.dtype",
        *,
        along: int,
        scale: "torch.Tensor | None",
    ) -> "torch.Tensor":
        """Return an operand rounded to `dtype` and back, float32 `[rows, columns]`.

        `along` is the dim that the product sums over; blocks are taken along it. `scale` is a scalar for recipes with
        a history, otherwise None.
        """
