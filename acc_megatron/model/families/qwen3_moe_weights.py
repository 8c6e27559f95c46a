"""The weights of Qwen3-MoE: router and experts.

Hugging Face folders have one tensor per expert, which transformers 4 and 5, vLLM and SGLang read, or fused experts as
transformers 5 can store them: per layer `gate_up_proj` `[experts, 2 x expert hidden, hidden]` and `down_proj`
`[experts, hidden, expert hidden]`.
"""

from collections.abc import Iterator

import torch

from acc_megatron.model.families.decoder_weights import DecoderWeights
from acc_megatron.model.weight_map import Entry, FusedPlace, Split

EXPERT_ROWS, EXPERT_COLUMNS = Split(0, "expert_tensor"), Split(1, "expert_tensor")


class Qwen3MoeWeights(DecoderWeights):
    """Decoder weights with a router and experts in every layer."""

    def mlp_entry(self, name: str, prefix: str, first_expert: int) -> Entry:
        """Return the entry of the router or of one expert's matrix."""
        if name == "mlp.router.weight":
            return Entry((f"{prefix}mlp.gate.weight",))
        matrix, expert = _matrix_and_expert(name)
        experts = f"{prefix}mlp.experts.{expert + first_expert}."
        if matrix == "linear_fc1":
            names = (f"{experts}gate_proj.weight", f"{experts}up_proj.weight")
            return Entry(names, EXPERT_ROWS, lambda gate, up: torch.cat([gate, up]), lambda both: both.chunk(2))
        assert matrix == "linear_fc2", name
        return Entry((f"{experts}down_proj.weight",), EXPERT_COLUMNS)

    def mlp_parameter_names(self) -> Iterator[str]:
        """Yield the router, then each expert's two matrices."""
        yield "mlp.router.weight"
        for expert in range(self.model.num_experts):
            yield from (f"mlp.experts.local_experts.{expert}.{name}.weight" for name in ("linear_fc1", "linear_fc2"))

    def mlp_shapes(self, *, is_fused: bool) -> dict[str, tuple[int, ...]]:
        """Return the router's and the experts' tensors of one layer."""
        model = self.model
        hidden, inner, experts = model.hidden_size, model.moe_intermediate_size, model.num_experts
        shapes: dict[str, tuple[int, ...]] = {"mlp.gate.weight": (experts, hidden)}
        if is_fused:
            shapes["mlp.experts.gate_up_proj"] = (experts, 2 * inner, hidden)
            shapes["mlp.experts.down_proj"] = (experts, hidden, inner)
            return shapes
        for number in range(experts):
            prefix = f"mlp.experts.{number}."
            shapes[f"{prefix}gate_proj.weight"] = shapes[f"{prefix}up_proj.weight"] = (inner, hidden)
            shapes[f"{prefix}down_proj.weight"] = (hidden, inner)
        return shapes

    def fused_place(self, name: str) -> FusedPlace | None:
        """Return where an expert's tensor is stored in a folder with fused experts; None for other tensors."""
        prefix, found, rest = name.partition(".mlp.experts.")
        if not found:
            return None
        expert, matrix, _ = rest.split(".")
        if matrix == "down_proj":
            return FusedPlace(f"{prefix}.mlp.experts.down_proj", int(expert), 0)
        first_row = self.model.moe_intermediate_size if matrix == "up_proj" else 0
        return FusedPlace(f"{prefix}.mlp.experts.gate_up_proj", int(expert), first_row)


def _matrix_and_expert(name: str) -> tuple[str, int]:
    """Split `mlp.experts.local_experts.3.linear_fc1.weight` or the grouped `mlp.experts.linear_fc1.weight3`."""
    parts = name.split(".")
    if parts[2] == "local_experts":
        return parts[4], int(parts[3])
    return parts[2], int(parts[3].removeprefix("weight"))
