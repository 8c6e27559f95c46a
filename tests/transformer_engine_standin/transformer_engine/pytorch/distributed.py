"""Random states, recompute under FP8, and collectives with gradients over a tensor-parallel group."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.utils.checkpoint

from .quantization import FP8GlobalStateManager


class CudaRNGStatesTracker:
    """Named random states."""

    def __init__(self) -> None:
        self.states_: dict[str, torch.Tensor] = {}
        self.seeds_: set[int] = set()

    def reset(self) -> None:
        self.states_, self.seeds_ = {}, set()

    def get_states(self) -> dict[str, torch.Tensor]:
        return dict(self.states_)

    def set_states(self, states: dict[str, torch.Tensor]) -> None:
        self.states_ = states

    def add(self, name: str, seed: int) -> None:
        if seed in self.seeds_ or name in self.states_:
            raise RuntimeError(f"random state {name} with seed {seed} already exists")
        self.seeds_.add(seed)
        before = torch.get_rng_state()
        torch.manual_seed(seed)
        self.states_[name] = torch.get_rng_state()
        torch.set_rng_state(before)

    @contextlib.contextmanager
    def fork(self, name: str = "model-parallel-rng") -> Iterator[None]:
        before = torch.get_rng_state()
        torch.set_rng_state(self.states_[name])
        try:
            yield
        finally:
            self.states_[name] = torch.get_rng_state()
            torch.set_rng_state(before)


class activation_recompute_forward(contextlib.AbstractContextManager):  # noqa: N801
    """Marks the passes of a recompute; the emulated scales need no mark."""

    def __init__(self, activation_recompute: bool = False, recompute_phase: bool = False) -> None:
        super().__init__()

    def __exit__(self, *_: Any) -> None: ...


def is_fp8_activation_recompute_enabled() -> bool:
    return False


def get_all_rng_states() -> dict[str, torch.Tensor]:
    return {}


def checkpoint(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run without keeping activations; the recomputing pass meets the FP8 context of the first."""
    for name in ("distribute_saved_activations", "get_rng_state_tracker", "tp_group"):
        kwargs.pop(name, None)
    stack = list(FP8GlobalStateManager._stack)

    @contextlib.contextmanager
    def again() -> Iterator[None]:
        now = FP8GlobalStateManager._stack
        FP8GlobalStateManager._stack = list(stack)
        try:
            yield
        finally:
            FP8GlobalStateManager._stack = now

    return torch.utils.checkpoint.checkpoint(
        function, *args, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), again()), **kwargs
    )


class _Gather(torch.autograd.Function):
    """All ranks' rows in rank order; the gradient is summed over ranks and cut."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        parts = [torch.empty_like(rows) for _ in range(group.size())]
        dist.all_gather(parts, rows.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient = gradient.clone()
        dist.all_reduce(gradient, group=ctx.group)
        return gradient.chunk(ctx.group.size())[ctx.group.rank()].contiguous(), None


class _Scatter(torch.autograd.Function):
    """The sum over ranks, cut into one part a rank; the gradient is gathered."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        total = rows.clone()
        dist.all_reduce(total, group=group)
        return total.chunk(group.size())[group.rank()].contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        parts = [torch.empty_like(gradient) for _ in range(ctx.group.size())]
        dist.all_gather(parts, gradient.contiguous(), group=ctx.group)
        return torch.cat(parts), None
