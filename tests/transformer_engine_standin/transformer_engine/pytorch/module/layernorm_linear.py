"""A norm and the linear layer behind it."""

from typing import Any

import torch
import torch.nn.functional as F

from .base import TransformerEngineBaseModule, _initialised, _parallel_linear


class LayerNormLinear(TransformerEngineBaseModule):
    """RMSNorm over the last dim, then `[..., in]` to `[..., out]` without bias, split by columns."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        eps: float = 1e-5,
        sequence_parallel: bool = False,
        fuse_wgrad_accumulation: bool = False,
        tp_group: Any = None,
        tp_size: int = 1,
        get_rng_state_tracker: Any = None,
        init_method: Any = None,
        bias: bool = True,
        normalization: str = "LayerNorm",
        return_bias: bool = False,
        params_dtype: torch.dtype | None = None,
        parallel_mode: str | None = None,
        return_layernorm_output: bool = False,
        zero_centered_gamma: bool = False,
        device: Any = "cuda",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        assert not bias and not return_bias and not fuse_wgrad_accumulation and not return_layernorm_output
        assert normalization == "RMSNorm" and not zero_centered_gamma and parallel_mode == "column", "not stood in for"
        self.tp_group, self.parallel_mode, self.use_bias, self.eps = tp_group, parallel_mode, bias, eps
        self.tp_size = tp_group.size() if tp_group is not None else tp_size
        self.sequence_parallel = self.tp_size > 1 and sequence_parallel
        self.in_features, self.out_features = in_features, out_features // self.tp_size
        self.layer_norm_weight = torch.nn.Parameter(torch.ones(in_features, dtype=params_dtype, device=device))
        self.layer_norm_weight.sequence_parallel = self.sequence_parallel
        shape = (self.out_features, in_features)
        self.weight = _initialised(shape, params_dtype, device, init_method, get_rng_state_tracker, None)
        self.weight.tensor_model_parallel, self.weight.partition_dim = True, 0

    def forward(self, inp: torch.Tensor, is_first_microbatch: bool | None = None) -> torch.Tensor:
        return _parallel_linear(self, F.rms_norm(inp, (self.in_features,), self.layer_norm_weight, self.eps))
