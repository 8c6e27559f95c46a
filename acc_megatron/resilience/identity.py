"""Whether a run that resumes is still the same run: over the same data in the same order, and what else changed."""

import hashlib
import json
from typing import Any

import numpy as np

from acc_megatron.config import flatten
from acc_megatron.errors import CheckpointError
from acc_megatron.ranks import say


def packing_sha256(rows: list[list[int]]) -> str:
    """A hash of which documents share a row, and in which order."""
    flat = np.asarray([document for row in rows for document in row], np.int64)
    sizes = np.asarray([len(row) for row in rows], np.int64)
    return hashlib.sha256(sizes.tobytes() + flat.tobytes()).hexdigest()


def refuse_change(saved: dict[str, Any], now: dict[str, Any], where: str, *, allow_data_change: bool) -> None:
    """Raise CheckpointError naming what differs, for instance `tokenizer.sha256`; the model may never differ.

    With `allow_data_change` other data is taken, said on stderr: the step number goes on over the new order, so that
    samples of the old one may be missed or come twice.
    """
    for key, value in now.items():
        old_values, new_values = flatten({key: saved.get(key)}), flatten({key: value})
        for name in old_values | new_values:
            old, new = old_values.get(name), new_values.get(name)
            if old == new:
                continue
            what = f"{where} was trained with {name} = {old!r}, this run has {new!r}"
            if key == "model":
                raise CheckpointError(f"{what}: restore it, or start a new train.run_dir")
            if not allow_data_change:
                raise CheckpointError(
                    f"{what}: restore it, start a new train.run_dir with train.init_from, or go on over the changed "
                    "data with train.allow_data_change=true"
                )
            say(f"train.allow_data_change: {what}; samples may be missed or come twice")


def changes(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`key = new (was old)` for every setting that differs from the saved run's."""
    old, new = flatten(saved), flatten(now)
    return [
        f"{key} = {json.dumps(new.get(key))} (was {json.dumps(old.get(key))})"
        for key in old | new
        if old.get(key) != new.get(key)
    ]
