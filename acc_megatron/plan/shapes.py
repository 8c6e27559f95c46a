"""What one rank works on in one microbatch: local tokens and local sizes, from the config and the layout."""

from dataclasses import dataclass

from acc_megatron.config import Config
from acc_megatron.layout import Layout
from acc_megatron.model.precision import PRECISIONS


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Sizes of one rank's tensors; a microbatch is one packed row."""

    on_gpu: bool  # Transformer Engine's layers, or the plain ones of the CPU path
    element_bytes: int
    row_tokens: int
    tokens: int  # of a context-parallel slice: what attention sees
    split_tokens: int  # of those, outside attention: sequence parallelism divides them by tensor
    expert_tokens: float  # copies of tokens that this rank's experts take
    hidden: int
    queries: int  # columns of the queries: local heads x head dim
    keys: int
    heads: int
    key_heads: int
    head_dim: int
    expert_ffn: int
    experts: int  # of the whole model
    local_experts: int
    experts_per_token: int
    vocab: int  # this rank's shard
    context: int

    @property
    def stream_bytes(self) -> int:
        """The residual stream `[split_tokens, hidden]`."""
        return self.split_tokens * self.hidden * self.element_bytes


def rank_shapes(config: Config, layout: Layout, *, on_gpu: bool, expert_load: float = 1.0) -> Shapes:
    """Shapes of a rank; `expert_load` is its experts' tokens over the mean, 1 when the router is balanced."""
    model = config.model
    tokens = config.data.seq_length_tokens // layout.context
    split_tokens = tokens // layout.tensor
    heads, key_heads = model.num_attention_heads // layout.tensor, model.num_key_value_heads // layout.tensor
    return Shapes(
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
        expert_ffn=model.moe_intermediate_size // layout.expert_tensor,
        experts=model.num_experts,
        local_experts=model.num_experts // layout.expert,
        experts_per_token=model.num_experts_per_tok,
        vocab=model.vocab_size // layout.tensor,
        context=layout.context,
    )
