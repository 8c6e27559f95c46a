"""A run that saves in the middle, and the same run resumed from there."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acc_megatron.config import Config
    from acc_megatron.mesh.layout import Layout
    from acc_megatron.training.trainer import Trainer


def uninterrupted_and_resumed(config: "Config", layout: "Layout") -> Iterator[tuple["Trainer", list[float]]]:
    """Train two steps, save, train two more; then resume from the save in a new trainer and train the same two.

    Yields each trainer after its last step, with the losses of its steps.
    """
    from acc_megatron.training.resume import restore, save
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer

    for first in (0, 2):
        trainer = build_trainer(config, layout)
        restore(trainer)
        assert trainer.step == first
        losses = []
        while trainer.step < 4:
            losses.append(train_step(trainer).loss)
            if trainer.step == 2:
                save(trainer)
        yield trainer, losses
