"""A tiny model in every layout that fits, against one rank."""

import dataclasses
import math

from acc_megatron.mesh.process_groups import own_ranks  # first: makes megatron run without CUDA

# isort: split
import torch

from acc_megatron.config import Config
from acc_megatron.selftest.accuracy import relative_difference, require
from acc_megatron.selftest.check import Found, Skipped
from acc_megatron.selftest.gradients import complete_gradients, gradient_pairs
from acc_megatron.selftest.layouts import NamedLayout, all_layouts, fitting, quick_layouts
from acc_megatron.selftest.place import Place
from acc_megatron.selftest.tiny_run import on_gpu, tiny_config, train_here
from acc_megatron.training.step_result import StepResult
from acc_megatron.training.trainer import Trainer

NUM_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Limits:
    """Largest differences from one rank: of a loss, of a gradient norm and of a parameter's gradient, relative."""

    loss: float
    norm: float
    gradient: float


# In bfloat16 the router sends a few tokens to other experts, which changes an expert's gradient by some per cent. A
# missing or repeated sum over ranks changes a gradient by half or more. No GPU has confirmed the limits of bfloat16.
LIMITS = {"float32": Limits(1e-5, 1e-4, 1e-5), "bfloat16": Limits(1e-2, 5e-2, 0.25)}


class Layouts:
    """Losses, gradient norms and the first gradient of every parameter, in SGD and, sharded, in AdamW."""

    name = "layouts"
    summary = "every layout that fits gives the losses and gradients of one rank"
    limit_seconds = 600.0
    advice = (
        "leave out the named axis (parallel.*=1) and repeat it with --only layouts; NCCL_DEBUG=INFO shows the links"
    )

    def run(self, place: Place) -> Found:
        """Train a few steps in one process on every rank, then in each layout."""
        asked = quick_layouts(place.world) if place.is_quick else all_layouts(place.world)
        if not asked:
            raise Skipped(f"{place.world} ranks cannot be divided by 2: no layout to compare")
        config = tiny_config(place, "layouts", batch_rows=math.lcm(4, place.world), num_steps=NUM_STEPS)
        layouts = fitting(asked, config, place.world, has_gpu=on_gpu())
        references = {}
        gradients: dict[str, torch.Tensor] = {}
        with place.one_process():
            for is_sharded in sorted({layout.is_sharded for layout in layouts}):
                after = (lambda trainer: None) if is_sharded else (lambda t: gradients.update(complete_gradients(t)))
                references[is_sharded] = train_here(_optimized(config, is_sharded), NUM_STEPS, after)
        figures: dict[str, float] = {"layouts": len(layouts)}
        for layout in layouts:
            _compare(place, config, layout, references[layout.is_sharded], gradients, figures)
        left_out = len(asked) - len(layouts)
        return Found(figures, f"{left_out} others do not fit the tiny model" if left_out else "")


def _optimized(config: Config, is_sharded: bool) -> Config:
    """SGD shows a wrong scale of a gradient, which AdamW would hide; the distributed optimizer needs AdamW."""
    if is_sharded:
        return config
    optimizer = dataclasses.replace(
        config.optimizer, kind="sgd", learning_rate=0.1, min_learning_rate=0.1, clip_grad_norm=0.0, weight_decay=0.0
    )
    return dataclasses.replace(config, optimizer=optimizer)


def _compare(
    place: Place,
    config: Config,
    layout: NamedLayout,
    reference: list[StepResult],
    gradients: dict[str, torch.Tensor],
    figures: dict[str, float],
) -> None:
    limits = LIMITS[config.train.precision]

    def compare_gradients(trainer: Trainer) -> None:
        for name, got, truth in gradient_pairs(trainer, gradients, own_ranks()):
            difference = relative_difference(got, truth)
            require("gradient", difference, limits.gradient, f"{layout.name}: {name}", figures)

    place.meet()
    here = dataclasses.replace(_optimized(config, layout.is_sharded), parallel=layout.parallel)
    steps = train_here(here, NUM_STEPS, (lambda trainer: None) if layout.is_sharded else compare_gradients)
    for number, (step, truth) in enumerate(zip(steps, reference, strict=True), start=1):
        what = f"{layout.name}, step {number}"
        require("loss", abs(step.loss / truth.loss - 1), limits.loss, what, figures)
        require("gradient norm", abs(step.grad_norm / truth.grad_norm - 1), limits.norm, what, figures)
