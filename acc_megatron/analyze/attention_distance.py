"""Attention distance: its mean, its histogram and the entropy of the long-range part, computed in chunks of queries.

The full attention matrix is never in memory; a chunk of queries against all keys needs O(sequence).
Shape suffixes: C queries of a chunk, T queries, S keys, H query heads, G key-value heads, D head dim, B bins.
"""

from dataclasses import dataclass

import torch

NUM_BINS = 32  # arXiv 2605.21850, figure 5
CHUNK_ELEMENTS = 1 << 24  # probabilities `[H, C, S]` of one chunk


@dataclass
class DistanceSums:
    """Sums over queries in float64; they can be added over documents and over ranks that share a document.

    `distance`, `entropy` and `long_mass` `[heads]`, `mass` `[heads, bins]`; `num_queries` counts all queries,
    `num_long` those with at least one long-range pair.
    """

    distance: torch.Tensor
    mass: torch.Tensor
    entropy: torch.Tensor
    long_mass: torch.Tensor
    num_queries: int = 0
    num_long: int = 0

    @classmethod
    def zeros(cls, num_heads: int) -> "DistanceSums":
        """The sums of no query."""
        one = torch.zeros(num_heads, dtype=torch.float64)
        return cls(one, torch.zeros(num_heads, NUM_BINS, dtype=torch.float64), one.clone(), one.clone())

    def means(self) -> "DistanceMeans":
        """Means over queries; the long-range ones over queries with a long-range pair."""
        queries, long = max(1, self.num_queries), max(1, self.num_long)
        return DistanceMeans(self.distance / queries, self.mass / queries, self.entropy / long, self.long_mass / long)


@dataclass(frozen=True, slots=True)
class DistanceMeans:
    """Means by head in float64: `histogram` `[heads, bins]` sums to 1, the others are `[heads]`."""

    distance_tokens: torch.Tensor
    histogram: torch.Tensor
    long_range_entropy_nats: torch.Tensor
    long_range_mass: torch.Tensor


def add_attention(
    sums: DistanceSums,
    query_THD: torch.Tensor,
    key_SGD: torch.Tensor,
    positions_T: torch.Tensor,
    *,
    scale: float,
    span_tokens: int,
    long_range_tokens: int,
) -> None:
    """Add the causal attention of one document's queries at `positions_T` over its keys to `sums`, in place.

    With a_ij the softmax over keys j <= i: the distance is sum_j a_ij (i - j); the histogram sums the a_ij by i - j in
    32 equal bins over `span_tokens`; the long-range part is all j with i - j >= `long_range_tokens`, and its entropy is
    that of the a_ij normalised to sum to 1 there. The paper shows the first two without a formula.
    """
    num_heads, groups = query_THD.shape[1], query_THD.shape[1] // key_SGD.shape[1]
    size = max(1, CHUNK_ELEMENTS // (num_heads * len(key_SGD)))
    key_SHD = key_SGD.float().repeat_interleave(groups, dim=1)
    for query_CHD, position_C in zip(query_THD.split(size), positions_T.split(size), strict=True):
        last = int(position_C.max()) + 1
        distance_CS = position_C[:, None] - torch.arange(last, device=position_C.device)
        logits_HCS = torch.einsum("chd,shd->hcs", query_CHD.float() * scale, key_SHD[:last])
        a_HCS = logits_HCS.masked_fill_(distance_CS < 0, -torch.inf).softmax(-1)
        _add_chunk(sums, a_HCS, distance_CS.clamp_(min=0), span_tokens, long_range_tokens)


def _add_chunk(
    sums: DistanceSums, a_HCS: torch.Tensor, distance_CS: torch.Tensor, span_tokens: int, long_range_tokens: int
) -> None:
    sums.num_queries += len(distance_CS)
    sums.distance += (a_HCS * distance_CS).sum((1, 2), dtype=torch.float64).cpu()
    bins = (distance_CS * NUM_BINS // span_tokens).clamp_(max=NUM_BINS - 1)
    mass = torch.zeros(len(a_HCS), NUM_BINS, dtype=torch.float64, device=a_HCS.device)
    sums.mass += mass.index_add_(1, bins.flatten(), a_HCS.flatten(1).double()).cpu()
    far = distance_CS >= long_range_tokens
    has_far = far.any(-1)
    if not has_far.any():
        return
    far_HCS = (a_HCS * far)[:, has_far].double()
    total = far_HCS.sum(-1)
    # -sum p log p with p = a / total; a head without long-range attention has no distribution and counts as 0
    plogp = torch.special.xlogy(far_HCS, far_HCS).sum(-1)
    entropy = torch.where(total > 0, torch.log(total.clamp(min=1e-300)) - plogp / total.clamp(min=1e-300), 0.0)
    sums.entropy += entropy.sum(-1).cpu()
    sums.long_mass += total.sum(-1).cpu()
    sums.num_long += int(has_far.sum())
