"""Fused attention of packed rows, forward and backward: causal inside each document, grouped queries, no dropout."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from support.engine.enumerations import ENUMERATIONS
from support.engine.module import emulated

_BACKEND = ENUMERATIONS["NVTE_Fused_Attn_Backend"]
_MASK = ENUMERATIONS["NVTE_Mask_Type"]
_THD = ENUMERATIONS["NVTE_QKV_Layout"]["NVTE_THD_THD_THD"]


@emulated
def get_fused_attn_backend(parameters: Any) -> tuple[int, str]:
    """Supported for packed rows without dropout, as cuDNN supports them; otherwise refused with the reason."""
    if int(parameters.qkv_layout) != _THD or parameters.dropout:
        return _BACKEND.NVTE_No_Backend, "the emulation has THD without dropout only"
    return _BACKEND.NVTE_F16_arbitrary_seqlen, ""


def _documents(
    cu_q: torch.Tensor, cu_kv: torch.Tensor, padded_q: torch.Tensor | None, padded_kv: torch.Tensor | None
) -> Iterator[tuple[slice, slice]]:
    """Queries and keys of each document: lengths from `cu_*`, places from `padded_*` where these are given."""
    starts_q, starts_kv = (cu if padded is None else padded for cu, padded in ((cu_q, padded_q), (cu_kv, padded_kv)))
    for number in range(len(cu_q) - 1):
        num_q, num_kv = int(cu_q[number + 1] - cu_q[number]), int(cu_kv[number + 1] - cu_kv[number])
        q, kv = int(starts_q[number]), int(starts_kv[number])
        yield slice(q, q + num_q), slice(kv, kv + num_kv)


def _scores(q: torch.Tensor, k: torch.Tensor, scale: float, mask: int) -> torch.Tensor:
    """`[heads, queries, keys]` float32; a causal mask starts at the top left corner or ends at the bottom right one."""
    scores = torch.einsum("qhd,khd->hqk", q.float(), k) * scale
    if mask == _MASK.NVTE_PADDING_MASK:
        return scores
    assert mask in (_MASK.NVTE_PADDING_CAUSAL_MASK, _MASK.NVTE_PADDING_CAUSAL_BOTTOM_RIGHT_MASK), _MASK(mask).name
    first_hidden = 1 if mask == _MASK.NVTE_PADDING_CAUSAL_MASK else 1 + len(k) - len(q)
    return scores.masked_fill(torch.ones(len(q), len(k), dtype=torch.bool).triu(first_hidden), float("-inf"))


def _per_query_head(x: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Keys or values in float32, once for each query head of their group."""
    return x.float().repeat_interleave(num_heads // x.shape[1], 1)


@emulated
def fused_attn_fwd(
    max_seqlen_q: int,
    max_seqlen_kv: int,
    is_training: bool,
    attn_scale: float,
    p_dropout: float,
    set_zero: bool,
    qkv_layout: int,
    o_format: int,
    qkv_scale_inv_format: int,
    bias_type: int,
    attn_mask_type: int,
    softmax_type: int,
    window_size: Sequence[int],
    bottom_right_diagonal: bool,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_kv: torch.Tensor,
    Q: torch.Tensor,
    K: torch.Tensor,
    V: torch.Tensor,
    fake_dtype: torch.dtype,
    cu_seqlens_q_padded: torch.Tensor | None,
    cu_seqlens_kv_padded: torch.Tensor | None,
    *rest: Any,
) -> list[torch.Tensor]:
    """`[output [tokens, heads, dim], log-sum-exp [tokens, heads, 1] float32, random state [2]]`."""
    assert int(qkv_layout) == _THD and not p_dropout
    out = torch.zeros(len(Q), Q.shape[1], V.shape[-1], dtype=Q.dtype)
    lse = torch.full((len(Q), Q.shape[1], 1), float("-inf"))
    for q, kv in _documents(cu_seqlens_q, cu_seqlens_kv, cu_seqlens_q_padded, cu_seqlens_kv_padded):
        assert q.stop - q.start <= max_seqlen_q and kv.stop - kv.start <= max_seqlen_kv
        scores = _scores(Q[q], _per_query_head(K[kv], Q.shape[1]), attn_scale, int(attn_mask_type))
        sums = scores.logsumexp(-1)
        values = _per_query_head(V[kv], Q.shape[1])
        out[q] = torch.einsum("hqk,khd->qhd", (scores - sums[..., None]).exp(), values).to(Q.dtype)
        lse[q, :, 0] = sums.T
    return [out, lse, torch.zeros(2, dtype=torch.int64)]


@emulated
def fused_attn_bwd(
    max_seqlen_q: int,
    max_seqlen_kv: int,
    attn_scale: float,
    p_dropout: float,
    set_zero: bool,
    qkv_layout: int,
    o_format: int,
    do_format: int,
    dqkv_layout: int,
    qkv_scale_inv_format: int,
    do_scale_inv_format: int,
    bias_type: int,
    attn_mask_type: int,
    softmax_type: int,
    window_size: Sequence[int],
    bottom_right_diagonal: bool,
    deterministic: bool,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_kv: torch.Tensor,
    Q: torch.Tensor,
    K: torch.Tensor,
    V: torch.Tensor,
    O: torch.Tensor,  # noqa: E741
    dO: torch.Tensor,
    fake_dtype: torch.dtype,
    aux_ctx_tensors: Sequence[torch.Tensor],
    cu_seqlens_q_padded: torch.Tensor | None,
    cu_seqlens_kv_padded: torch.Tensor | None,
    *rest: Any,
) -> list[torch.Tensor | None]:
    """`[dQ, dK, dV, bias gradient, offset gradient]` by FlashAttention's formulas (arXiv 2205.14135, appendix B)."""
    lse = aux_ctx_tensors[0]
    num_heads, group = Q.shape[1], Q.shape[1] // K.shape[1]
    dq, dk, dv = torch.zeros_like(Q), torch.zeros_like(K), torch.zeros_like(V)
    for q, kv in _documents(cu_seqlens_q, cu_seqlens_kv, cu_seqlens_q_padded, cu_seqlens_kv_padded):
        keys, values = _per_query_head(K[kv], num_heads), _per_query_head(V[kv], num_heads)
        weights = (_scores(Q[q], keys, attn_scale, int(attn_mask_type)) - lse[q, :, 0].T[..., None]).exp()
        gradient = dO[q].float()
        delta = (gradient * O[q].float()).sum(-1).T[..., None]
        scores = weights * (torch.einsum("qhd,khd->hqk", gradient, values) - delta) * attn_scale
        dq[q] = torch.einsum("hqk,khd->qhd", scores, keys).to(Q.dtype)
        dk[kv] = torch.einsum("hqk,qhd->khd", scores, Q[q].float()).unflatten(1, (-1, group)).sum(2).to(K.dtype)
        dv[kv] = torch.einsum("hqk,qhd->khd", weights, gradient).unflatten(1, (-1, group)).sum(2).to(V.dtype)
    return [dq, dk, dv, None, None]
