"""The padded rows removed again."""

import torch

from .fp8_padding import _align_size


class Fp8Unpadding(torch.nn.Module):
    """Padded rows back to `[sum(m_splits), hidden]`."""

    def __init__(self, num_gemms: int, align_size: int | None = None) -> None:
        super().__init__()
        self.num_gemms, self.align_size = num_gemms, align_size

    def forward(self, inp: torch.Tensor, m_splits: list[int]) -> torch.Tensor:
        size = self.align_size or _align_size()
        padded = inp.split([length + -length % size for length in m_splits])
        return torch.cat([rows[:length] for rows, length in zip(padded, m_splits, strict=True)])
