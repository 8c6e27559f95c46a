"""What the stack must know about a model family."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from acc_megatron.config import ModelConfig, ParallelConfig
from acc_megatron.mesh.layout import Layout

if TYPE_CHECKING:
    from acc_megatron.model.weight_map import WeightMap


@dataclass(frozen=True, slots=True)
class LayerParameters:
    """Numbers of parameters of one layer on one rank."""

    dense: int
    experts: int  # replicated over other ranks than `dense`
    largest: int  # of the largest tensor


@dataclass(frozen=True, slots=True)
class Division:
    """A number that must be a multiple of another, with the names of both for the error."""

    name: str
    value: int
    divisor_name: str
    divisor: int


class ModelFamily(Protocol):
    """One Hugging Face model type; implementations import torch only inside of methods."""

    model_type: str  # as in config.json

    def config_from_hf(self, hf: dict[str, Any], file: Path) -> ModelConfig:
        """Convert the content of config.json; raises CheckpointError with the key that is missing or unsupported."""

    def config_to_hf(self, model: ModelConfig) -> dict[str, Any]:
        """Return config.json in names that transformers 4 and 5, vLLM and SGLang read."""

    def check(self, model: ModelConfig) -> None:
        """Raise ConfigError for settings that this family cannot have."""

    def divisions(self, model: ModelConfig, layout: Layout) -> list[Division]:
        """Return what must divide over the tensor and expert axes."""

    def transformer_fields(self, model: ModelConfig) -> dict[str, Any]:
        """Return the fields of Megatron's TransformerConfig that describe the architecture."""

    def block_spec(self, transformer: Any, vp_stage: int | None, emulated: Any) -> Any:
        """Return Megatron's spec of this rank's layers; `emulated` is the FP8 to emulate without Transformer Engine."""

    def weight_map(self, model: ModelConfig) -> "WeightMap":
        """Return the relation between Megatron's parameters and Hugging Face's tensors."""

    def layer_parameters(self, model: ModelConfig, layout: Layout) -> LayerParameters:
        """Count the parameters of one layer on one rank."""

    def active_layer_weights(self, model: ModelConfig) -> int:
        """Count the weights of one layer that each token is multiplied by."""

    def attention_flops_per_squared_token(self, model: ModelConfig) -> int:
        """Return forward FLOPs of one layer's core attention, divided by the squared length of the document."""

    def quantised_dims(self, model: ModelConfig, parallel: ParallelConfig) -> list[tuple[str, int]]:
        """Return every dim of the matrices that FP8 multiplies on one rank, with the sum that gives it."""
