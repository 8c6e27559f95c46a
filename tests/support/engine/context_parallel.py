"""The `thd_*` functions of TE's context-parallel attention, which work on halves of every document.

`cu_seqlens` are bounds `[documents + 1]` of the documents in the tensor at hand; a rank stores two zig-zag chunks of
each, its first and its second half. Log-sum-exps are packed: `[heads, tokens]`.
"""

import torch

from support.engine.module import emulated


def _half(cu_seqlens: torch.Tensor, number: int) -> torch.Tensor:
    """The positions of the first (0) or second (1) half of every document."""
    bounds = cu_seqlens.tolist()
    middle = [(start + end) // 2 for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
    pairs = zip(bounds[:-1], middle, strict=True) if number == 0 else zip(middle, bounds[1:], strict=True)
    return torch.cat([torch.arange(start, end) for start, end in pairs])


@emulated
def thd_read_half_tensor(tensor: torch.Tensor, cu_seqlens: torch.Tensor, half_idx: int) -> torch.Tensor:
    """One half of every document of `[tokens, heads, dim]`, or of `[2, tokens, heads, dim]`."""
    return tensor.index_select(0 if tensor.dim() == 3 else 1, _half(cu_seqlens, half_idx))


@emulated
def thd_read_second_half_lse(
    lse: torch.Tensor, cu_seqlens: torch.Tensor, lse_packed: bool, second_half_lse_seqlen: int
) -> torch.Tensor:
    """`[heads, second_half_lse_seqlen]`, zero behind the last token."""
    assert lse_packed
    half = lse[:, _half(cu_seqlens, 1)]
    return torch.nn.functional.pad(half, (0, second_half_lse_seqlen - half.shape[1]))


@emulated
def thd_second_half_lse_correction(
    lse: torch.Tensor, lse_per_step: torch.Tensor, cu_seqlens: torch.Tensor, lse_packed: bool
) -> None:
    """Add a step's exponentials to those of the second halves, in place."""
    assert lse_packed
    tokens = _half(cu_seqlens, 1)
    lse[:, tokens] = torch.logaddexp(lse[:, tokens], lse_per_step[:, : len(tokens)])


@emulated
def thd_out_correction(
    out: torch.Tensor,
    out_per_step: torch.Tensor,
    old_lse: torch.Tensor,
    lse: torch.Tensor,
    lse_per_step: torch.Tensor,
    cu_seqlens: torch.Tensor,
    only_second_half: bool,
    lse_packed: bool,
) -> None:
    """Merge a step's output into `out [tokens, heads, dim]`, each weighted by its share of the exponentials."""
    assert lse_packed
    tokens = _half(cu_seqlens, 1) if only_second_half else torch.arange(len(out))
    now = lse[:, tokens]
    old_share = (old_lse[:, tokens] - now).exp().T[..., None]
    step_share = (lse_per_step[:, : len(tokens)] - now).exp().T[..., None]
    step = out_per_step.view(-1, *out.shape[1:])[: len(tokens)]
    out[tokens] = (out[tokens].float() * old_share + step.float() * step_share).to(out.dtype)


@emulated
def thd_grad_correction(
    grad: torch.Tensor, grad_per_step: torch.Tensor, cu_seqlens: torch.Tensor, first_half: str, second_half: str
) -> None:
    """Add, copy or zero a step's gradient in the halves of every document; it covers both, or the one that is named."""
    covers_both = len(grad_per_step) == len(grad)
    for number, action in enumerate((first_half, second_half)):
        tokens = _half(cu_seqlens, number)
        step = grad_per_step[tokens] if covers_both else grad_per_step[: len(tokens)]
        if action == "add":
            grad[tokens] += step
        elif action == "copy":
            grad[tokens] = step
        elif action == "zero":
            grad[tokens] = 0
        else:
            assert action == "none", action


def _rank_order(cu_seqlens: torch.Tensor, cp_size: int) -> torch.Tensor:
    """Positions in the row of all ranks' tokens, rank after rank, each with two zig-zag chunks of every document."""
    bounds = cu_seqlens.tolist()
    parts = []
    for rank in range(cp_size):
        for start, end in zip(bounds[:-1], bounds[1:], strict=True):
            chunks = torch.arange(start, end).chunk(2 * cp_size)
            parts += [chunks[rank], chunks[2 * cp_size - 1 - rank]]
    return torch.cat(parts)


@emulated
def thd_sequence_order_to_cp_rank_order(
    inp: torch.Tensor, cu_seqlens: torch.Tensor, cp_size: int, total_tokens: int
) -> torch.Tensor:
    """A whole row as the ranks store it; `cu_seqlens` are the bounds in the whole row."""
    return inp[_rank_order(cu_seqlens, cp_size)]


@emulated
def thd_cp_rank_order_to_sequence_order(
    inp: torch.Tensor, cu_seqlens: torch.Tensor, cp_size: int, total_tokens: int
) -> torch.Tensor:
    """The inverse: tokens of all ranks, rank after rank, in the order of the row."""
    return inp[_rank_order(cu_seqlens, cp_size).argsort()]


@emulated
def thd_copy_valid_tokens_from_per_split_to_rank_local(
    out: torch.Tensor, inp: torch.Tensor, cu_seqlens_padded: torch.Tensor, cu_seqlens: torch.Tensor
) -> None:
    """Copy each document's first tokens: as many as `cu_seqlens` counts, from where `cu_seqlens_padded` starts it."""
    lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).tolist()
    for start, end, length in zip(
        cu_seqlens_padded[:-1].tolist(), cu_seqlens_padded[1:].tolist(), lengths, strict=True
    ):
        valid = slice(start, min(start + length, end))
        out[valid] = inp[valid]
