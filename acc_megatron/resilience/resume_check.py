"""Checks whether a resumed run has the same model, data and order of data, and lists other changed settings."""

import hashlib
import json
from typing import Any

import numpy as np

from acc_megatron.config import flatten
from acc_megatron.errors import CheckpointError
from acc_megatron.mesh.torchrun_environment import say


def packing_sha256(rows: list[list[int]]) -> str:
    """A hash of the packed rows: their documents and order."""
    flat = np.asarray([document for row in rows for document in row], np.int64)
    sizes = np.asarray([len(row) for row in rows], np.int64)
    return hashlib.sha256(sizes.tobytes() + flat.tobytes()).hexdigest()


def refuse_change(saved: dict[str, Any], now: dict[str, Any], where: str, *, allow_data_change: bool) -> None:
    """Raise CheckpointError with the name of a value that differs, for example `tokenizer.sha256`.

    With `allow_data_change` a warning on stderr replaces the error, except for the model: the run continues at the
    same step number in the new order of data, so some samples may be skipped and others repeated.
    """
    for key, value in now.items():
        old_values, new_values = flatten({key: saved.get(key)}), flatten({key: value})
        for name in old_values | new_values:
            old, new = old_values.get(name), new_values.get(name)
            if old == new:
                continue
            what = f"{where} was trained with {name} = {old!r}, this run has {new!r}"
            if key == "model":
                raise CheckpointError(f"{what}: restore it, or choose a new train.run_dir")
            if not allow_data_change:
                raise CheckpointError(
                    f"{what}: restore it, choose a new train.run_dir with train.init_from, or continue with the "
                    "changed data by train.allow_data_change=true"
                )
            say(f"train.allow_data_change: {what}; some samples may be skipped and others repeated")


# settings that decide what the optimizer's state in a checkpoint is, and what they were before they existed
STATE_SETTINGS = {"kind": "adamw", "moments": "float32", "master_weights": "float32"}


def refuse_other_optimizer(saved: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Raise CheckpointError if the optimizer's state would not fit. All other settings may change."""
    for key, before in STATE_SETTINGS.items():
        old, new = saved["optimizer"].get(key, before), now["optimizer"][key]
        if old != new:
            raise CheckpointError(
                f"{where} contains the state of optimizer.{key} = {old!r}, this run has {new!r}: restore it, or choose "
                "a new train.run_dir and start from the weights with train.init_from"
            )


def changes(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """List every setting that differs from the saved run, as `key = new (was old)`."""
    old, new = flatten(saved), flatten(now)
    return [
        f"{key} = {json.dumps(new.get(key))} (was {json.dumps(old.get(key))})"
        for key in old | new
        if old.get(key) != new.get(key)
    ]
