"""YaRN in config.json: reading it, writing it, and the numbers that follow from it."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acc_megatron.common.typed_settings import from_dict
from acc_megatron.config import ModelConfig, RopeScaling
from acc_megatron.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import torch


def read_rope_scaling(hf: dict[str, Any], file: Path) -> RopeScaling | None:
    """Return the scaling in `rope_parameters` (transformers 5) or `rope_scaling` (transformers 4), None without one.

    Raises CheckpointError for another rope type and for a key that would be ignored.
    """
    rope = dict(hf.get("rope_parameters") or hf.get("rope_scaling") or {})
    kind = rope.pop("type", "default")
    kind = rope.pop("rope_type", kind)
    rope.pop("rope_theta", None)
    if (partial := rope.pop("partial_rotary_factor", 1.0)) != 1.0:
        raise CheckpointError(f"{file}: partial_rotary_factor = {partial!r} is not supported")
    if kind == "default":
        return None
    if kind != "yarn":
        raise CheckpointError(f"{file}: rope_type = {kind!r} is not supported; supported: 'default', 'yarn'")
    window = hf.get("max_position_embeddings")
    if rope.get("original_max_position_embeddings") is None:
        rope["original_max_position_embeddings"] = window
    if rope.get("factor") is None and isinstance(window, int):
        rope["factor"] = window / rope["original_max_position_embeddings"]
    given = {key: value for key, value in rope.items() if value is not None}
    try:
        return from_dict(RopeScaling, given, str(file), "rope_scaling.")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def write_rope_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """Return the value of `rope_scaling`, without the keys that have their defaults."""
    if scaling is None:
        return None
    defaults = {field.name: field.default for field in dataclasses.fields(RopeScaling)}
    values = dataclasses.asdict(scaling)
    return {"rope_type": "yarn"} | {key: value for key, value in values.items() if value != defaults[key]}


def replace_rope_scaling(hf: dict[str, Any], model: ModelConfig) -> dict[str, Any]:
    """Return config.json with the model's scaling and window in place of its own, under the keys that it has."""
    scaling = write_rope_scaling(model.rope_scaling)
    changed: dict[str, Any]
    if "rope_parameters" in hf:
        changed = {"rope_parameters": {"rope_theta": model.rope_theta} | (scaling or {"rope_type": "default"})}
    else:
        changed = {"rope_scaling": scaling}
    return hf | changed | {"max_position_embeddings": model.window_tokens}


def trained_positions(stated: int) -> int:
    """Return the window that a model was trained in, which YaRN scales, for `max_position_embeddings`.

    The first Qwen3 models state 40,960 positions but were trained on 32,768; their model cards scale the latter.
    """
    return {40_960: 32_768}.get(stated, stated)


def check_rope_scaling(model: ModelConfig) -> None:
    """Raise ConfigError for numbers that YaRN is not defined for."""
    scaling = model.rope_scaling
    if scaling is None:
        return
    for name in ("factor", "original_max_position_embeddings"):
        if (value := getattr(scaling, name)) < 1:
            raise ConfigError(f"model.rope_scaling.{name} = {value} must be at least 1")
    if not 0 < scaling.beta_slow <= scaling.beta_fast:
        raise ConfigError(
            f"model.rope_scaling.beta_slow = {scaling.beta_slow} must be greater than 0 and at most "
            f"model.rope_scaling.beta_fast = {scaling.beta_fast}"
        )


def attention_factor(scaling: RopeScaling) -> float:
    """Return the factor of rotated queries and of rotated keys: 0.1 ln(factor) + 1, or as config.json says."""

    def temperature(weight: float) -> float:
        return 0.1 * weight * math.log(scaling.factor) + 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.factor <= 1:
        return 1.0
    if scaling.mscale and scaling.mscale_all_dim:
        return temperature(scaling.mscale) / temperature(scaling.mscale_all_dim)
    return temperature(1.0)


def frequencies(model: ModelConfig) -> "torch.Tensor":
    """Return the angle by which each pair of dims turns from one token to the next, `[head_dim / 2]` float32.

    Section 3.2 of the paper: a dim that turns often in the original window keeps its frequency, one that turns rarely
    is interpolated by `factor`, and between both the share of interpolation rises linearly with the dim.
    """
    import torch

    pairs = torch.arange(0, model.head_dim, 2, dtype=torch.float32) / model.head_dim
    plain = 1.0 / model.rope_theta**pairs
    scaling = model.rope_scaling
    if scaling is None:
        return plain
    first, last = _limit(model, scaling, scaling.beta_fast), _limit(model, scaling, scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, model.head_dim - 1)
    width = last - first or 0.001
    interpolated = ((torch.arange(len(pairs), dtype=torch.float32) - first) / width).clamp(0, 1)
    return plain * (1 - interpolated) + plain / scaling.factor * interpolated


def _limit(model: ModelConfig, scaling: RopeScaling, turns: float) -> float:
    """Return the pair of dims that turns `turns` times in the original window."""
    window = scaling.original_max_position_embeddings
    return model.head_dim * math.log(window / (turns * 2 * math.pi)) / (2 * math.log(model.rope_theta))
