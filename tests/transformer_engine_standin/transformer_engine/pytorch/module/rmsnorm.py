"""RMSNorm."""

from typing import Any

import torch
import torch.nn.functional as F


class RMSNorm(torch.nn.Module):
    """x / sqrt(mean(x^2) + eps) times a weight, over the last dim."""

    def __init__(
        self,
        normalized_shape: Any = None,
        eps: float = 1e-5,
        sequence_parallel: bool | None = None,
        params_dtype: torch.dtype | None = None,
        zero_centered_gamma: bool = False,
        hidden_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        assert not zero_centered_gamma and hidden_size is None, "not stood in for"
        self.weight = torch.nn.Parameter(torch.ones(normalized_shape, dtype=params_dtype, device=kwargs.get("device")))
        self.weight.sequence_parallel = sequence_parallel
        self.eps = eps

    def forward(self, inp: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(inp, tuple(self.weight.shape), self.weight, self.eps)

    def get_extra_state(self) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        assert state is None or state.numel() == 0
