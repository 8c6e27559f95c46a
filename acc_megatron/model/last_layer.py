"""A last decoder layer that computes the rows which a loss needs: the end of each document, from its first target on.

Keys and values come from all tokens. Attention output, experts or MLP, and the final norm have these rows only, and so
have the hidden states that the model returns. Queries are projected for all tokens, because the projection is one
matrix with that of keys and values.
"""

import dataclasses
import enum
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel import CheckpointWithoutOutput
from megatron.core.tensor_parallel.mappings import (
    gather_from_sequence_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_layer import TransformerLayer


class Mask(enum.Enum):
    """The mask that Megatron 0.19.2 has no name for; Transformer Engine takes the name."""

    padding_causal_bottom_right = 0


@dataclass(frozen=True, slots=True)
class Picked:
    """Which of the `R` rows a rank has in a tensor of tokens, and where."""

    places: torch.Tensor  # `[S]` int64, in the tensor
    numbers: torch.Tensor  # `[S]` int64, ascending, among the R

    def spread(self, tokens: torch.Tensor, num_rows: int) -> torch.Tensor:
        """Return `[R, ...]`, the rows of `tokens` at their numbers and zeros for the rows of other ranks."""
        rows = tokens.index_select(0, self.places)
        if len(rows) == num_rows:
            return rows
        return tokens.new_zeros(num_rows, *tokens.shape[1:]).index_copy(0, self.numbers, rows)


@dataclass(frozen=True, slots=True)
class SuffixRows:
    """The `R` rows that the last layer computes of one packed row, as one rank sees them.

    Consecutive shares of `R / context` rows belong to the context-parallel ranks, whatever zig-zag chunks the tokens
    come from, so that all ranks compute as many; consecutive parts of a share to the tensor-parallel ranks.
    """

    num_rows: int  # R, a multiple of context x tensor
    in_slice: Picked  # rows among the tokens of this context-parallel rank
    in_part: Picked  # rows among the tokens of this tensor-parallel rank's part of that slice
    attention: PackedSeqParams  # bounds of the share's queries, and of their documents' keys
    keys: torch.Tensor | None  # places of these keys in those gathered over the context-parallel ranks; None: all
    labels: torch.Tensor  # `[1, R / context]` int64
    loss_mask: torch.Tensor  # `[1, R / context]` float32
    not_supervised: torch.Tensor  # `[1, R / context / tensor]` bool

    def queries(self, query: torch.Tensor) -> torch.Tensor:
        """Return the share's queries, `[R / context, heads, head_dim]`, of those of the slice's tokens."""
        return self._scatter_over_context(self.in_slice.spread(query, self.num_rows))

    def hidden_states(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return `[R / context / tensor, 1, hidden]` of the hidden states `[tokens / tensor, 1, hidden]`."""
        rows = self._scatter_over_context(self.in_part.spread(hidden, self.num_rows))
        if parallel_state.get_tensor_model_parallel_world_size() == 1:
            return rows
        return reduce_scatter_to_sequence_parallel_region(rows)

    def _scatter_over_context(self, rows: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks, exactly, because one of them has the row and the others have 0; return the share."""
        group = parallel_state.get_context_parallel_group()
        return rows if group.size() == 1 else reduce_scatter_to_sequence_parallel_region(rows, group=group)


@dataclass
class SuffixParams(PackedSeqParams):
    """The bounds of a packed row's documents, and the rows of its last layer."""

    suffixes: SuffixRows | None = None


class SuffixLayer(TransformerLayer):
    """A layer whose output `[R / context / tensor, 1, hidden]` has some rows of its input only; see SuffixRows."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer; its routers balance the supervised rows only, whatever Megatron's `padding_mask` says."""
        if kwargs["padding_mask"] is not None:
            kwargs["padding_mask"] = kwargs["packed_seq_params"].suffixes.not_supervised
        return super().forward(*args, **kwargs)

    def _forward_attention(
        self, hidden_states: torch.Tensor, attention_mask: Any, *, packed_seq_params: SuffixParams, **others: Any
    ) -> tuple[torch.Tensor, None]:
        """Attend from the rows; Megatron's method would add the output of attention to all tokens."""
        norm = None
        if self.recompute_input_layernorm:
            norm = CheckpointWithoutOutput()
            normed = norm.checkpoint(self.input_layernorm, hidden_states)
        else:
            normed = self.input_layernorm(hidden_states)
        output = self.self_attention(
            normed, attention_mask, rotary_pos_emb=others["rotary_pos_emb"], packed_seq_params=packed_seq_params
        )
        if norm is not None:
            norm.discard_output_and_register_recompute(output[0])
        assert packed_seq_params.suffixes is not None
        residual = packed_seq_params.suffixes.hidden_states(hidden_states)
        add = self.self_attn_bda(self.training, self.config.bias_dropout_fusion)
        with self.bias_dropout_add_exec_handler():
            return add(output, residual, self.hidden_dropout), None


class SuffixAttention:
    """Core attention from the rows to the keys of their documents; stands before the class that computes it.

    Takes queries, keys and values of all tokens, returns `[R / context, heads * head_dim]`.
    """

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: Any = None,
        *,
        packed_seq_params: SuffixParams,
        **_: Any,
    ) -> torch.Tensor:
        """Compute attention; context-parallel ranks all-gather keys and values, whatever the other layers exchange."""
        suffixes = packed_seq_params.suffixes
        assert suffixes is not None
        if suffixes.keys is not None:
            both = torch.cat([key, value], dim=-1).contiguous()
            both = gather_from_sequence_parallel_region(both, group=parallel_state.get_context_parallel_group())
            key, value = (part.contiguous() for part in both.index_select(0, suffixes.keys).chunk(2, dim=-1))
        return super().forward(  # type: ignore[misc]
            suffixes.queries(query),
            key,
            value,
            attention_mask,
            attn_mask_type=Mask.padding_causal_bottom_right,
            packed_seq_params=suffixes.attention,
        )


def with_suffix_layer(block: TransformerBlockSubmodules) -> TransformerBlockSubmodules:
    """Return the spec of a last pipeline stage, whose last layer becomes a SuffixLayer; parameters keep their names."""
    *others, last = block.layer_specs
    attention = last.submodules.self_attention
    core = attention.submodules.core_attention
    suffix_core = type(f"Suffix{core.__name__}", (SuffixAttention, core), {})
    inner = dataclasses.replace(attention.submodules, core_attention=suffix_core)
    submodules = dataclasses.replace(last.submodules, self_attention=dataclasses.replace(attention, submodules=inner))
    layer = dataclasses.replace(last, module=SuffixLayer, submodules=submodules)
    return dataclasses.replace(block, layer_specs=[*others, layer])
