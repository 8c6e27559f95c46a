"""Qwen3-MoE: every layer routes each token to a few of its experts (Qwen3 technical report, arXiv 2505.09388)."""

from typing import TYPE_CHECKING, Any

from acc_megatron.config import ModelConfig, ParallelConfig
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.families.decoder import Decoder
from acc_megatron.model.families.family import Division, LayerParameters

if TYPE_CHECKING:
    from acc_megatron.model.weight_map import WeightMap


class Qwen3Moe(Decoder):
    """Qwen3-30B-A3B, Qwen3-235B-A22B and smaller models of their architecture."""

    model_type = "qwen3_moe"
    architecture = "Qwen3MoeForCausalLM"

    def mlp_values(self, hf: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of the experts; some releases call the number of experts num_local_experts."""
        return {
            "intermediate_size": 0,  # without dense layers it has no effect
            "num_experts": hf.get("num_experts", hf.get("num_local_experts")),
            "num_experts_per_tok": hf.get("num_experts_per_tok"),
            "moe_intermediate_size": hf.get("moe_intermediate_size"),
        }

    def config_to_hf(self, model: ModelConfig) -> dict[str, Any]:
        """Return config.json; intermediate_size is required by readers but has no effect without dense layers."""
        return super().config_to_hf(model) | {
            "intermediate_size": model.moe_intermediate_size,
            "moe_intermediate_size": model.moe_intermediate_size,
            "num_experts": model.num_experts,
            "num_experts_per_tok": model.num_experts_per_tok,
            "norm_topk_prob": model.norm_topk_prob,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "router_aux_loss_coef": 0.0,
        }

    def check(self, model: ModelConfig) -> None:
        """Raise ConfigError for numbers of experts that cannot be routed to or cannot be trained."""
        super().check(model)
        for name in ("num_experts", "num_experts_per_tok", "moe_intermediate_size"):
            if getattr(model, name) < 1:
                raise ConfigError(
                    f"model.{name} = {getattr(model, name)} must be at least 1 for model.family = {self.model_type!r}"
                )
        if model.num_experts_per_tok > model.num_experts:
            raise ConfigError(
                f"model.num_experts_per_tok = {model.num_experts_per_tok} exceeds model.num_experts = "
                f"{model.num_experts}"
            )
        if model.num_experts_per_tok == 1 and model.norm_topk_prob:
            raise ConfigError(
                "model.num_experts_per_tok = 1 needs model.norm_topk_prob = false: a single probability that is "
                "normalised to sum to 1 is always 1, so the router would get no gradient"
            )

    def divisions(self, model: ModelConfig, layout: Layout) -> list[Division]:
        """Experts divide over the expert axis, and each one's hidden dim over the expert-tensor axis."""
        return [
            *super().divisions(model, layout),
            Division("model.num_experts", model.num_experts, "parallel.expert", layout.expert),
            Division(
                "model.moe_intermediate_size",
                model.moe_intermediate_size,
                "parallel.expert_tensor",
                layout.expert_tensor,
            ),
        ]

    def transformer_fields(self, model: ModelConfig) -> dict[str, Any]:
        """Return Megatron's fields; `norm_topk_prob` is softmax after top-k, and the router runs in float32."""
        return super().transformer_fields(model) | {
            "ffn_hidden_size": model.moe_intermediate_size,
            "num_moe_experts": model.num_experts,
            "moe_router_topk": model.num_experts_per_tok,
            "moe_ffn_hidden_size": model.moe_intermediate_size,
            "moe_layer_freq": 1,
            "moe_router_pre_softmax": not model.norm_topk_prob,
            "moe_router_score_function": "softmax",
            "moe_router_dtype": "fp32",
        }

    def weight_map(self, model: ModelConfig) -> "WeightMap":
        """Return the weight map with one tensor per expert or one per layer."""
        from acc_megatron.model.families.qwen3_moe_weights import Qwen3MoeWeights

        return Qwen3MoeWeights(model)

    def layer_parameters(self, model: ModelConfig, layout: Layout) -> LayerParameters:
        """Count attention, router and norms as dense, and this rank's experts."""
        expert = _expert_weights(model) // layout.expert_tensor
        router = model.hidden_size * model.num_experts
        return LayerParameters(
            dense=self.attention_weights(model) // layout.tensor + router + self.norm_weights(model),
            experts=model.num_experts // layout.expert * expert,
            largest=max(2 * expert // 3, self.qkv_weights(model, layout)),
        )

    def active_layer_weights(self, model: ModelConfig) -> int:
        """Count attention, router, and the `num_experts_per_tok` experts of a token."""
        experts = _expert_weights(model) * model.num_experts_per_tok
        return self.attention_weights(model) + experts + model.hidden_size * model.num_experts

    def quantised_dims(self, model: ModelConfig, parallel: ParallelConfig) -> list[tuple[str, int]]:
        """Return the dims of attention and experts; the router is not in FP8."""
        inner, shards = model.moe_intermediate_size, parallel.expert_tensor
        return [
            *super().quantised_dims(model, parallel),
            (f"moe_intermediate_size {inner} / etp {shards}", inner // shards),
        ]


def _expert_weights(model: ModelConfig) -> int:
    """Gate, up and down projection of one expert."""
    return 3 * model.hidden_size * model.moe_intermediate_size
