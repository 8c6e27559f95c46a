"""Products of each expert's tokens with its own matrix."""

import torch
import torch.nn.functional as F


def grouped_product(x: torch.Tensor, weights: torch.Tensor, splits: list[int]) -> torch.Tensor:
    """Return `[tokens, out]`: each expert's tokens times the transpose of its weight, `weights [experts, out, in]`.

    The first `splits[0]` of the tokens `x [tokens, in]` belong to expert 0. One product for all experts where torch has
    it: bfloat16 on a GPU, with rows of a multiple of 16 bytes.
    """
    is_aligned = weights.shape[1] % 8 == 0 and weights.shape[2] % 8 == 0
    if x.is_cuda and x.dtype is torch.bfloat16 and is_aligned:
        ends = torch.tensor(splits, device=x.device).cumsum(0).to(torch.int32)
        return F.grouped_mm(x, weights.transpose(1, 2), offs=ends)
    parts = [F.linear(part, weight) for part, weight in zip(x.split(splits), weights, strict=True)]
    return torch.cat(parts)
