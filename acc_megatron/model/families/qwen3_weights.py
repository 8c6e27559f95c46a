"""The weights of dense Qwen3: gate, up and down projection of each layer."""

from collections.abc import Iterator

import torch

from acc_megatron.model.families.decoder_weights import COLUMNS, ROWS, DecoderWeights
from acc_megatron.model.weight_map import Entry


class Qwen3Weights(DecoderWeights):
    """Decoder weights with an MLP in every layer; Megatron stores gate and up together."""

    def mlp_entry(self, name: str, prefix: str, first_expert: int) -> Entry:
        """Return the entry of a matrix, or of the norm that Transformer Engine fuses into the first one."""
        if name == "mlp.linear_fc1.layer_norm_weight":
            return Entry((f"{prefix}post_attention_layernorm.weight",))
        if name == "mlp.linear_fc1.weight":
            names = (f"{prefix}mlp.gate_proj.weight", f"{prefix}mlp.up_proj.weight")
            return Entry(names, ROWS, lambda gate, up: torch.cat([gate, up]), lambda both: both.chunk(2))
        assert name == "mlp.linear_fc2.weight", name
        return Entry((f"{prefix}mlp.down_proj.weight",), COLUMNS)

    def mlp_parameter_names(self) -> Iterator[str]:
        """Yield the two matrices."""
        yield from ("mlp.linear_fc1.weight", "mlp.linear_fc2.weight")

    def mlp_shapes(self, *, is_fused: bool) -> dict[str, tuple[int, ...]]:
        """Return the three tensors of one layer; without experts none is fused."""
        hidden, width = self.model.hidden_size, self.model.intermediate_size
        return {
            "mlp.gate_proj.weight": (width, hidden),
            "mlp.up_proj.weight": (width, hidden),
            "mlp.down_proj.weight": (hidden, width),
        }
