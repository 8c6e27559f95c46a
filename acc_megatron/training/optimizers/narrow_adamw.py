"""AdamW whose state is narrower than float32, with the arithmetic of Transformer Engine's FusedAdam, on CPU.

Source: pytorch/optimizers/fused_adam.py and common/multi_tensor/adam.cu of Transformer Engine 2.20. An update reads
the state as float32 and rounds it once, when it stores it. A tensor in fp8 or float16 has one scale.
"""

from typing import Any

import torch

from acc_megatron.model.stored_numbers import (
    RANGES,
    join_remainder,
    read_scaled,
    split_remainder,
    write_scaled,
)
from acc_megatron.training.optimizers.cpu_adamw import FusedLayoutAdamW, update


class NarrowAdamW(FusedLayoutAdamW):
    """AdamW with the arguments and the state of FusedAdam: exp_avg, exp_avg_sq and, if it stores weights, master_param.

    torch.uint8 stands for float8_e4m3fn. `_scales` has the scale `[1]` of every tensor in fp8 or float16.
    """

    def __init__(self, params: Any, *, exp_avg_dtype: torch.dtype = torch.float32,
                 exp_avg_sq_dtype: torch.dtype = torch.float32, master_weights: bool = False,
                 use_decoupled_grad: bool = False, master_weight_dtype: torch.dtype = torch.float32,
                 store_param_remainders: bool = False, **kwargs: Any) -> None:  # fmt: skip
        super().__init__(params, **kwargs)
        self.exp_avg_dtype, self.exp_avg_sq_dtype = exp_avg_dtype, exp_avg_sq_dtype
        self.master_weights, self.master_weight_dtype = master_weights, master_weight_dtype
        self.use_decoupled_grad, self.store_param_remainders = use_decoupled_grad, store_param_remainders
        self._scales: dict[torch.Tensor, dict[str, torch.Tensor]] = {}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for p in group["params"]:
                gradient = getattr(p, "decoupled_grad", None) if self.use_decoupled_grad else p.grad
                if not self.state[p]:
                    self.initialize_state(p, self.store_param_remainders)
                if gradient is not None:
                    self._update(p, gradient.float(), group)

    def _update(self, p: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        weight = self._read_weight(p)
        moments = {name: self._read(p, name) for name in ("exp_avg", "exp_avg_sq")}
        update([weight], [gradient], [moments["exp_avg"]], [moments["exp_avg_sq"]], group)
        for name, value in moments.items():
            self._write(p, name, value)
        self._write_weight(p, weight)

    @torch.no_grad()
    def initialize_state(self, p: torch.Tensor, store_param_remainders: bool) -> None:
        """Create the state before the first update: moments of 0, and the weight itself."""
        stored = {"exp_avg": self.exp_avg_dtype, "exp_avg_sq": self.exp_avg_sq_dtype}
        if self.master_weights:
            stored["master_param"] = torch.int16 if store_param_remainders else self.master_weight_dtype
        self._scales[p] = {name: torch.ones(1) for name, dtype in stored.items() if dtype in RANGES}
        self.state[p] = {name: torch.zeros_like(p, dtype=dtype) for name, dtype in stored.items()}
        if self.master_weights and not store_param_remainders:
            self._write(p, "master_param", p.float())

    def _read(self, p: torch.Tensor, name: str) -> torch.Tensor:
        """Return a tensor of the state as float32; one that is float32 is returned itself."""
        return read_scaled(self.state[p][name], self._scales[p].get(name))

    def _write(self, p: torch.Tensor, name: str, value: torch.Tensor) -> None:
        write_scaled(value, self.state[p][name], self._scales[p].get(name))

    def _read_weight(self, p: torch.Tensor) -> torch.Tensor:
        if not self.master_weights:
            return p
        stored = self.state[p]["master_param"]
        return join_remainder(p, stored) if stored.dtype is torch.int16 else self._read(p, "master_param")

    def _write_weight(self, p: torch.Tensor, weight: torch.Tensor) -> None:
        if not self.master_weights:
            return
        stored = self.state[p]["master_param"]
        if stored.dtype is torch.int16:
            split_remainder(weight, p, stored)
        else:
            self._write(p, "master_param", weight)
            p.copy_(weight)
