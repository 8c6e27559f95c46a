"""Several linear layers over consecutive rows: the experts of a rank."""

from typing import Any

import torch

from .base import TransformerEngineBaseModule, _initialised, _multiply


class GroupedLinear(TransformerEngineBaseModule):
    """Rows `[sum(m_splits), in]` to `[sum(m_splits), out]`, each split through a weight of its own, without bias."""

    def __init__(
        self,
        num_gemms: int,
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
        ub_name: str | None = None,
        save_original_input: bool = False,
        single_grouped_weight: bool = False,
        single_grouped_bias: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        assert not bias and not return_bias and not fuse_wgrad_accumulation and not single_grouped_weight
        assert tp_size == 1, "the dispatcher splits experts over tensor ranks itself"
        self.num_gemms, self.in_features, self.out_features = num_gemms, in_features, out_features
        self.tp_size, self.use_bias, self.save_original_input = tp_size, bias, save_original_input
        for number in range(num_gemms):
            shape = (out_features, in_features)
            weight = _initialised(shape, params_dtype, device, init_method, get_rng_state_tracker, rng_tracker_name)
            self.register_parameter(f"weight{number}", weight)

    def forward(self, inp: torch.Tensor, m_splits: Any, is_first_microbatch: bool | None = None) -> torch.Tensor:
        splits = m_splits.tolist() if torch.is_tensor(m_splits) else list(m_splits)
        assert len(splits) == self.num_gemms and sum(splits) == len(inp), (splits, inp.shape)
        parts = [
            _multiply(self, rows, getattr(self, f"weight{number}"), number)
            for number, rows in enumerate(inp.split(splits))
        ]
        return torch.cat(parts)
