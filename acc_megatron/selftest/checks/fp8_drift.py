"""How far each FP8 recipe drifts from bfloat16 on this device: losses of a short run from the same weights."""

import dataclasses

from acc_megatron.mesh.process_groups import process_groups  # noqa: F401 - first: makes megatron run without CUDA

# isort: split
import torch

from acc_megatron.compatibility import check_job
from acc_megatron.config import Config
from acc_megatron.errors import ConfigError
from acc_megatron.model.precision import PRECISIONS
from acc_megatron.selftest.accuracy import require
from acc_megatron.selftest.check import Found, Skipped
from acc_megatron.selftest.place import Place
from acc_megatron.selftest.tiny_run import on_gpu, tiny_config, train_here, with_train

NUM_STEPS = 8
# the tests bound the emulated recipes by the same values
MEAN_LIMIT = 0.01
STEP_LIMIT = 0.05


class Fp8Drift:
    """Every FP8 recipe that the device and the model support, on each device by itself."""

    name = "fp8"
    summary = "losses with each FP8 recipe stay close to those with bfloat16"
    limit_seconds = 300.0
    advice = "train with train.precision=bfloat16 until the recipe is understood; fp8.bf16_layers_at_start may help"

    def run(self, place: Place) -> Found:
        """Train in bfloat16, then in each recipe."""
        config = with_train(tiny_config(place, "fp8", batch_rows=2, num_steps=NUM_STEPS), precision="bfloat16")
        recipes, refused = _available(config)
        if not recipes:
            raise Skipped(next(iter(refused.values())))
        chosen = recipes[:1] if place.is_quick else recipes
        figures: dict[str, float] = {}
        with place.one_process():
            reference = [step.loss for step in train_here(config, NUM_STEPS)]
            for name in chosen:
                losses = [step.loss for step in train_here(with_train(config, precision=name), NUM_STEPS)]
                drifts = [abs(a / b - 1) for a, b in zip(losses, reference, strict=True)]
                require(f"{name} mean drift", sum(drifts) / len(drifts), MEAN_LIMIT, f"{NUM_STEPS} steps", figures)
                require(f"{name} largest drift", max(drifts), STEP_LIMIT, f"{NUM_STEPS} steps", figures)
        notes = [f"{name}: {reason.split(':')[0]}" for name, reason in refused.items()]
        return Found(figures, "; ".join(["Transformer Engine" if on_gpu() else "emulated on CPU", *notes]))


def _available(config: Config) -> tuple[list[str], dict[str, str]]:
    """Return the FP8 recipes that training accepts here, and the reason for each other one."""
    capability = float(".".join(map(str, torch.cuda.get_device_capability()))) if on_gpu() else None
    accepted, refused = [], {}
    for name, precision in PRECISIONS.items():
        if precision.recipe is None:
            continue
        alone = dataclasses.replace(with_train(config, precision=name))
        try:
            check_job(alone, 1, has_gpu=on_gpu(), capability=capability)
        except ConfigError as error:
            refused[name] = str(error)
        else:
            accepted.append(name)
    return accepted, refused
