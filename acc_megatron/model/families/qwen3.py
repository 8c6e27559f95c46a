"""Qwen3: a gated MLP in every layer and no router (Qwen3 technical report, arXiv 2505.09388)."""

from typing import TYPE_CHECKING, Any

from acc_megatron.config import ModelConfig, ParallelConfig
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.families.decoder import Decoder
from acc_megatron.model.families.family import Division, LayerParameters

if TYPE_CHECKING:
    from acc_megatron.model.weight_map import WeightMap


class Qwen3(Decoder):
    """Qwen3-0.6B to Qwen3-32B; 0.6B, 1.7B and 4B use the embeddings as output head."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"

    def mlp_values(self, hf: dict[str, Any]) -> dict[str, Any]:
        """Return the width of the MLP."""
        return {"intermediate_size": hf.get("intermediate_size")}

    def config_to_hf(self, model: ModelConfig) -> dict[str, Any]:
        """Return config.json."""
        return super().config_to_hf(model) | {
            "intermediate_size": model.intermediate_size,
            "use_sliding_window": False,
            "sliding_window": None,
            "max_window_layers": model.num_hidden_layers,
        }

    def check(self, model: ModelConfig) -> None:
        """Raise ConfigError without an MLP, or with experts."""
        super().check(model)
        if model.intermediate_size < 1:
            raise ConfigError(
                f"model.intermediate_size = {model.intermediate_size} must be at least 1 for model.family = "
                f"{self.model_type!r}"
            )
        for name in ("num_experts", "num_experts_per_tok", "moe_intermediate_size"):
            if value := getattr(model, name):
                raise ConfigError(
                    f"model.{name} = {value}: model.family = {self.model_type!r} has no experts; remove the key, or "
                    "set model.family = 'qwen3_moe'"
                )

    def divisions(self, model: ModelConfig, layout: Layout) -> list[Division]:
        """The width of the MLP divides over the tensor axis."""
        width = Division("model.intermediate_size", model.intermediate_size, "parallel.tensor", layout.tensor)
        return [*super().divisions(model, layout), width]

    def transformer_fields(self, model: ModelConfig) -> dict[str, Any]:
        """Return Megatron's fields."""
        return super().transformer_fields(model) | {"ffn_hidden_size": model.intermediate_size}

    def weight_map(self, model: ModelConfig) -> "WeightMap":
        """Return the weight map; gate and up projection are one parameter."""
        from acc_megatron.model.families.qwen3_weights import Qwen3Weights

        return Qwen3Weights(model)

    def layer_parameters(self, model: ModelConfig, layout: Layout) -> LayerParameters:
        """Count attention, MLP and norms."""
        mlp = 3 * model.hidden_size * model.intermediate_size // layout.tensor
        return LayerParameters(
            dense=self.attention_weights(model) // layout.tensor + mlp + self.norm_weights(model),
            experts=0,
            largest=max(2 * mlp // 3, self.qkv_weights(model, layout)),
        )

    def active_layer_weights(self, model: ModelConfig) -> int:
        """Count attention and MLP."""
        return self.attention_weights(model) + 3 * model.hidden_size * model.intermediate_size

    def quantised_dims(self, model: ModelConfig, parallel: ParallelConfig) -> list[tuple[str, int]]:
        """Return the dims of attention and MLP."""
        width, tensor = model.intermediate_size, parallel.tensor
        return [
            *super().quantised_dims(model, parallel),
            (f"intermediate_size {width} / tp {tensor}", width // tensor),
        ]
