"""Linear, with tensor parallelism."""

from typing import Any

import torch

from .base import TransformerEngineBaseModule, _initialised, _parallel_linear


class Linear(TransformerEngineBaseModule):
    """`[..., in]` to `[..., out]` without bias."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        sequence_parallel: bool = False,
        fuse_wgrad_accumulation: bool = False,
        tp_group: Any = None,
        tp_size: int = 1,
        get_rng_state_tracker: Any = None,
        rng_tracker_name: str | None = None,
        init_method: Any = None,
        bias: bool = True,
        return_bias: bool = False,
        params_dtype: torch.dtype | None = None,
        parallel_mode: str | None = None,
        device: Any = "cuda",
        save_original_input: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        assert not bias and not return_bias and not fuse_wgrad_accumulation, "not stood in for"
        self.tp_group, self.parallel_mode, self.use_bias = tp_group, parallel_mode, bias
        self.tp_size = tp_group.size() if tp_group is not None else tp_size
        self.sequence_parallel = self.tp_size > 1 and sequence_parallel
        self.save_original_input = save_original_input
        self.in_features = in_features // (self.tp_size if parallel_mode == "row" else 1)
        self.out_features = out_features // (self.tp_size if parallel_mode == "column" else 1)
        shape = (self.out_features, self.in_features)
        self.weight = _initialised(shape, params_dtype, device, init_method, get_rng_state_tracker, rng_tracker_name)
        self.weight.tensor_model_parallel = parallel_mode is not None
        self.weight.partition_dim = 1 if parallel_mode == "row" else 0
        self.weight.partition_stride = 1

    def forward(self, inp: torch.Tensor, is_first_microbatch: bool | None = None) -> torch.Tensor:
        return _parallel_linear(self, inp)
