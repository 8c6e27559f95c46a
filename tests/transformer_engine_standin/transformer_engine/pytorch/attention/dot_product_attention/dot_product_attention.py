"""Core attention of packed rows by one dense mask, with context parallelism by gathered keys and values."""

from typing import Any

import torch

from ...distributed import _Gather
from ...module.base import TransformerEngineBaseModule


def _positions(bounds: list[int], size: int, rank: int) -> torch.Tensor:
    """Positions in the row of the tokens that a context rank holds."""
    if size == 1:
        return torch.arange(bounds[-1])
    parts = []
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        chunks = torch.arange(start, end).chunk(2 * size)
        parts += [chunks[rank], chunks[2 * size - 1 - rank]]
    return torch.cat(parts)


class DotProductAttention(TransformerEngineBaseModule):
    """Causal softmax attention inside each document; `thd` in, `[tokens, heads * head_dim]` out."""

    def __init__(
        self,
        num_attention_heads: int,
        kv_channels: Any,
        num_gqa_groups: int | None = None,
        attention_dropout: float = 0.0,
        qkv_format: str = "sbhd",
        attn_mask_type: str = "causal",
        sequence_parallel: bool = False,
        tp_size: int = 1,
        get_rng_state_tracker: Any = None,
        tp_group: Any = None,
        layer_number: int | None = None,
        attention_type: str = "self",
        cp_group: Any = None,
        cp_global_ranks: Any = None,
        cp_stream: Any = None,
        cp_comm_type: str = "p2p",
        softmax_scale: float | None = None,
        softmax_type: str = "vanilla",
        return_max_logit: bool | None = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        assert not attention_dropout and not return_max_logit and softmax_type == "vanilla", "not stood in for"
        assert cp_comm_type in ("p2p", "all_gather", "a2a", "a2a+p2p")
        self.scale = softmax_scale or kv_channels**-0.5
        self.cp_group, self.cp_comm_type = cp_group, cp_comm_type
        self.register_load_state_dict_post_hook(_forgive_missing_state)

    def set_context_parallel_group(
        self, cp_group: Any, cp_global_ranks: Any, cp_stream: Any, cp_comm_type: str = "p2p"
    ) -> None:
        self.cp_group, self.cp_comm_type = cp_group, cp_comm_type

    def forward(
        self,
        query_layer: torch.Tensor,
        key_layer: torch.Tensor,
        value_layer: torch.Tensor,
        attention_mask: Any = None,
        qkv_format: str | None = None,
        cu_seqlens_q: torch.Tensor | None = None,
        cu_seqlens_kv: torch.Tensor | None = None,
        cu_seqlens_q_padded: torch.Tensor | None = None,
        cu_seqlens_kv_padded: torch.Tensor | None = None,
        max_seqlen_q: int | None = None,
        max_seqlen_kv: int | None = None,
        attn_mask_type: str | None = None,
        pad_between_seqs: bool | None = None,
        num_splits: int | None = 1,
    ) -> torch.Tensor:
        assert qkv_format == "thd" and attn_mask_type == "padding_causal" and cu_seqlens_q is not None
        assert cu_seqlens_kv is not None and torch.equal(cu_seqlens_q, cu_seqlens_kv)
        bounds = cu_seqlens_q.tolist()
        assert max(b - a for a, b in zip(bounds[:-1], bounds[1:], strict=True)) <= max_seqlen_q
        groups = self.cp_group if isinstance(self.cp_group, list) else [self.cp_group]
        group = next((each for each in groups if each is not None and each.size() > 1), None)
        size, rank = (group.size(), group.rank()) if group is not None else (1, 0)
        mine = _positions(bounds, size, rank)
        theirs = torch.cat([_positions(bounds, size, other) for other in range(size)])
        if group is not None:
            key_layer, value_layer = _Gather.apply(key_layer, group), _Gather.apply(value_layer, group)
        documents = torch.tensor(bounds[1:])
        same = torch.bucketize(mine, documents, right=True)[:, None] == torch.bucketize(theirs, documents, right=True)
        seen = same & (mine[:, None] >= theirs)
        repeats = query_layer.shape[1] // key_layer.shape[1]
        keys, values = (x.repeat_interleave(repeats, dim=1).float() for x in (key_layer, value_layer))
        scores = torch.einsum("qhd,khd->hqk", query_layer.float(), keys) * self.scale
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights, values).to(query_layer.dtype).flatten(1)


def _forgive_missing_state(module: torch.nn.Module, incompatible_keys: Any) -> None:
    """Checkpoints hold no state of core attention."""
    for key in [key for key in incompatible_keys.missing_keys if "core_attention._extra_state" in key]:
        incompatible_keys.missing_keys.remove(key)
