"""What a different number of epochs means for a run that resumes: its schedule, and rows that no epoch trains on."""

from typing import Any

from acc_megatron.config import optimizer_config_from_dict
from acc_megatron.training.schedules import learning_rate
from acc_megatron.training.trainer import Trainer


def new_length(trainer: Trainer, state: dict[str, Any]) -> list[str]:
    """Return lines for the user; there are none if the schedule of the saved `state` has the same number of steps."""
    if state["num_steps"] == trainer.num_steps:
        return []
    step, train, saved = state["step"], trainer.config.train, state["config"]
    old_settings = optimizer_config_from_dict(saved["optimizer"], "the saved [optimizer]")
    old = learning_rate(step, state["num_steps"], old_settings)
    new = learning_rate(step, trainer.num_steps, trainer.config.optimizer)
    lines = [
        f"the schedule has {trainer.num_steps} steps (was {state['num_steps']}), so the learning rate of step "
        f"{step + 1} is {new:.3e} (was {old:.3e})"
    ]
    epochs = saved["train"]["epochs"]
    num_empty = step * train.global_batch_rows - epochs * len(trainer.loader.rows)
    if train.epochs > epochs and num_empty > 0:
        lines.append(
            f"{num_empty} packed rows of epoch {epochs + 1} are not trained on: the last batch of the saved run was "
            "filled with empty rows in their place"
        )
    return lines
