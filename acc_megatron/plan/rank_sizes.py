"""Sizes of the tensors of one rank in one microbatch, from the config and the layout."""

from dataclasses import dataclass

from acc_megatron.config import Config
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.precision import PRECISIONS


@dataclass(frozen=True, kw_only=True)
class RankSizes:
    """Tokens and dims on one rank; a microbatch is one packed row."""

    on_gpu: bool  # Transformer Engine's layers, otherwise the plain layers of the CPU path
    element_bytes: int
    row_tokens: int
    tokens: int  # of the context-parallel slice, as attention sees them
    split_tokens: int  # of the slice outside attention, where sequence parallelism divides it by tensor
    expert_tokens: float  # token copies that this rank's experts process
    hidden: int
    queries: int  # columns of the queries: local heads x head dim
    keys: int
    heads: int
    key_heads: int
    head_dim: int
    ffn: int  # columns of the dense MLP; 0 in a model with experts
    expert_ffn: int
    experts: int  # of the whole model
    local_experts: int
    experts_per_token: int
    vocab: int  # of this rank's part of the vocabulary
    context: int

    @property
    def stream_bytes(self) -> int:
        """Bytes of the residual stream `[split_tokens, hidden]`."""
        return self.split_tokens * self.hidden * self.element_bytes


def rank_sizes(config: Config, layout: Layout, *, on_gpu: bool, expert_load: float = 1.0) -> RankSizes:
    """Sizes of a rank whose experts process `expert_load` times the mean number of tokens; 1 is a balanced router."""
    model = config.model
    tokens = config.data.seq_length_tokens // layout.context
    split_tokens = tokens // layout.tensor
    heads, key_heads = model.num_attention_heads // layout.tensor, model.num_key_value_heads // layout.tensor
    return RankSizes(
        on_gpu=on_gpu,
        element_bytes=4 if PRECISIONS[config.train.precision].dtype == "float32" else 2,
        row_tokens=config.data.seq_length_tokens,
        tokens=tokens,
        split_tokens=split_tokens,
        # expert tensor parallelism gathers the tokens of its ranks and splits the experts' columns
        expert_tokens=split_tokens * model.num_experts_per_tok * layout.expert_tensor * expert_load,
        hidden=model.hidden_size,
        queries=heads * model.head_dim,
        keys=key_heads * model.head_dim,
        heads=heads,
        key_heads=key_heads,
        head_dim=model.head_dim,
        ffn=model.intermediate_size // layout.tensor,
        expert_ffn=model.moe_intermediate_size // layout.expert_tensor,
        experts=model.num_experts,
        local_experts=model.num_experts // layout.expert,
        experts_per_token=model.num_experts_per_tok,
        vocab=model.vocab_size // layout.tensor,
        context=layout.context,
    )
