"""Whether a model divides over the axes of a layout."""

from collections.abc import Iterable

from acc_megatron.config import ModelConfig
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.families.family import Division


def check_model_divides(model: ModelConfig, virtual_pipeline: int, layout: Layout) -> None:
    """Raise ConfigError with the first division that has a remainder, or for an axis of experts without experts."""
    for axis in ("expert", "expert_tensor") if not model.num_experts else ():
        if (size := getattr(layout, axis)) > 1:
            raise ConfigError(f"parallel.{axis} = {size} must be 1: model.family = {model.family!r} has no experts")
    stages = layout.pipeline * virtual_pipeline
    layers = Division(
        "model.num_hidden_layers", model.num_hidden_layers, "parallel.pipeline x virtual_pipeline", stages
    )
    check_divisions([*FAMILIES[model.family].divisions(model, layout), layers])


def check_divisions(divisions: Iterable[Division]) -> None:
    """Raise ConfigError with the first division that has a remainder."""
    for each in divisions:
        if each.value % each.divisor:
            raise ConfigError(f"{each.name} = {each.value} is not a multiple of {each.divisor_name} = {each.divisor}")
