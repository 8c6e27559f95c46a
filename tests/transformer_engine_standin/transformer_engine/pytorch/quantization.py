"""The FP8 context: which recipe is on, and the moment at which delayed scales move on."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist

_RECIPES = {
    "DelayedScaling": "delayed",
    "TEDelayedScaling": "delayed",
    "Float8CurrentScaling": "tensorwise",
    "Float8BlockScaling": "blockwise",
    "MXFP8BlockScaling": "mxfp8",
}


class FP8GlobalStateManager:
    """The recipe in force, the stack of those around it, and operands whose delayed scales wait."""

    _stack: list[tuple[Any, Any]] = []  # noqa: RUF012
    _waiting: list[Any] = []  # noqa: RUF012
    entered: list[str] = []  # noqa: RUF012  recipes that a context was entered with, for tests

    @classmethod
    def is_fp8_enabled(cls) -> bool:
        return bool(cls._stack) and cls._stack[-1][0] is not None

    @classmethod
    def is_fp8_calibration(cls) -> bool:
        return False

    @classmethod
    def get_fp8_recipe(cls) -> Any:
        return cls._stack[-1][0] if cls._stack else None  # the original: the device's default

    @classmethod
    def get_fp8_group(cls) -> Any:
        return cls._stack[-1][1]

    @classmethod
    def reset(cls) -> None:
        cls._stack, cls._waiting, cls.entered = [], [], []


class autocast:  # noqa: N801
    """FP8 inside, with a recipe; `enabled=False` turns it off inside another."""

    def __init__(
        self,
        enabled: bool = True,
        calibrating: bool = False,
        recipe: Any = None,
        amax_reduction_group: Any = None,
        _graph: bool = False,
    ) -> None:
        self._entry = (recipe if enabled else None, amax_reduction_group)

    def __enter__(self) -> None:
        FP8GlobalStateManager._stack.append(self._entry)
        if self._entry[0] is not None:
            FP8GlobalStateManager.entered.append(type(self._entry[0]).__name__)

    def __exit__(self, *_: Any) -> None:
        state = FP8GlobalStateManager
        _, group = state._stack.pop()
        if not state._stack:
            for operands in dict.fromkeys(state._waiting):
                amax = operands.seen.clone()
                if group is not None:
                    dist.all_reduce(amax, op=dist.ReduceOp.MAX, group=group)
                operands.move_on(amax)
            state._waiting = []


def fp8_autocast(
    enabled: bool = True, calibrating: bool = False, fp8_recipe: Any = None, fp8_group: Any = None, _graph: bool = False
) -> autocast:
    """The old name of autocast."""
    return autocast(enabled, calibrating, fp8_recipe, fp8_group, _graph)


@contextlib.contextmanager
def fp8_model_init(
    enabled: bool = True, recipe: Any = None, preserve_high_precision_init_val: bool = False
) -> Iterator[None]:
    """Parameters in FP8: not stood in for."""
    if enabled:
        raise NotImplementedError("the stand-in keeps no parameters in FP8")
    yield


def _operands(module: Any, number: int) -> Any:
    """What quantises the operands of the module's product `number` under the recipe in force; None without FP8."""
    state = FP8GlobalStateManager
    if not state.is_fp8_enabled():
        return None
    from acc_megatron.model.fp8_linear import Emulation, Operands  # late: it imports megatron

    recipe = state.get_fp8_recipe()
    name = _RECIPES[type(recipe).__name__]
    key = (name, recipe.fp8_format.value)
    kept = module.__dict__.setdefault("_standin_operands", {})
    if kept.get(number, (None,))[0] != key:
        history = (recipe.amax_history_len, recipe.amax_compute_algo) if name == "delayed" else (1, "max")
        kept[number] = (key, Operands(Emulation(*key, *history)))
    operands = kept[number][1]
    if name == "delayed":
        state._waiting.append(operands)
    return operands
