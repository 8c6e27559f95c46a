"""Rows of zeros behind each expert's tokens, up to the recipe's alignment."""

import torch
import torch.nn.functional as F

from ..quantization import FP8GlobalStateManager


def _align_size() -> int:
    name = type(FP8GlobalStateManager.get_fp8_recipe()).__name__
    return 32 if name == "MXFP8BlockScaling" else 16


class Fp8Padding(torch.nn.Module):
    """`[sum(m_splits), hidden]` to the padded rows and the padded splits."""

    def __init__(self, num_gemms: int, align_size: int | None = None) -> None:
        super().__init__()
        self.num_gemms, self.align_size = num_gemms, align_size

    def forward(self, inp: torch.Tensor, m_splits: list[int]) -> tuple[torch.Tensor, list[int]]:
        assert len(m_splits) == self.num_gemms
        size = self.align_size or _align_size()
        parts = [F.pad(rows, (0, 0, 0, -len(rows) % size)) for rows in inp.split(m_splits)]
        return torch.cat(parts), [len(rows) for rows in parts]
