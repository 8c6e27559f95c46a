"""Core attention in plain torch for packed rows: causal inside each document, nothing across documents.

Replaces Transformer Engine's packed attention on CPU; memory depends on one document's chunk, not on the packed row.
A document may have fewer queries than keys: they are its last ones.
Shape suffixes: T local tokens, S tokens of the packed row, H query heads, G key-value heads, D head dim.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig

from acc_megatron.mesh.context_shard import gathered_order


class PackedAttention(MegatronModule):
    """Causal attention over one packed row (`thd`); context-parallel ranks all-gather keys and values.

    Takes queries `[tokens, heads, head_dim]` and keys and values `[tokens, kv_heads, head_dim]` of this rank's
    zig-zag slice, returns `[tokens, heads * head_dim]`. Gradients of keys and values are reduce-scattered.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: Any = None,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        assert not (config.attention_dropout if attention_dropout is None else attention_dropout)
        self.scale = softmax_scale or config.kv_channels**-0.5
        self.context_group = pg_collection.cp

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: Any = None,
        **_: Any,
    ) -> torch.Tensor:
        """Compute attention; `packed_seq_params` has the document bounds of the complete packed row.

        With `local_cp_size` 1 in it the keys are complete already, as for Transformer Engine's attention.
        """
        assert attention_bias is None and packed_seq_params is not None and packed_seq_params.qkv_format == "thd"
        cu_seqlens = tuple(packed_seq_params.cu_seqlens_q.tolist())
        context = packed_seq_params.local_cp_size or self.context_group.size()
        assert cu_seqlens[-1] == len(query) * context, "cu_seqlens must cover the complete packed row"
        key_SGD, value_SGD = key, value
        if context > 1:
            both = torch.cat([key, value], dim=-1).contiguous()
            both = gather_from_sequence_parallel_region(both, group=self.context_group)
            key_SGD, value_SGD = both[gathered_order(cu_seqlens, context)].chunk(2, dim=-1)
            pairs = _chunks(cu_seqlens, context, self.context_group.rank())
        else:
            bounds = pairwise(cu_seqlens), pairwise(packed_seq_params.cu_seqlens_kv.tolist())
            pairs = [(slice(*queries), slice(*keys)) for queries, keys in zip(*bounds, strict=True)]
        chunks = [self._attend(query[queries], key_SGD[keys], value_SGD[keys]) for queries, keys in pairs]
        return torch.cat(chunks).flatten(1)

    def _attend(self, query_THD: torch.Tensor, key_SGD: torch.Tensor, value_SGD: torch.Tensor) -> torch.Tensor:
        """Attend from queries at the last T of S positions; returns `[T, H, D]`."""
        num_queries, num_keys = len(query_THD), len(key_SGD)
        mask = None
        if num_queries != num_keys:
            ones = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query_THD.device)
            mask = ones.tril(diagonal=num_keys - num_queries)
        query_1HTD, key_1GSD, value_1GSD = (x.transpose(0, 1)[None] for x in (query_THD, key_SGD, value_SGD))
        out_1HTD = F.scaled_dot_product_attention(
            query_1HTD,
            key_1GSD,
            value_1GSD,
            attn_mask=mask,
            is_causal=mask is None,
            scale=self.scale,
            enable_gqa=True,
        )
        return out_1HTD[0].transpose(0, 1)


def _chunks(cu_seqlens: tuple[int, ...], context: int, rank: int) -> list[tuple[slice, slice]]:
    """Return the local queries of each of a rank's two chunks of a document, and their keys in the packed row."""
    chunks, local = [], 0
    for start, end in pairwise(cu_seqlens):
        size = (end - start) // (2 * context)
        for number in (rank, 2 * context - 1 - rank):
            chunks.append((slice(local, local + size), slice(start, start + (number + 1) * size)))
            local += size
    return chunks
