"""Which part of a conversion this process makes: given by the user, or by the batch system that started it."""

import re
from collections.abc import Mapping

from acc_megatron.errors import DataError


def parse_part(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """`(i, n)`, i from 0, of "i/n", of "n" (i from Slurm's array or a Kubernetes indexed job), or of "array" (Slurm).

    Raises DataError for anything else, and when the environment does not provide the missing numbers.
    """
    index, count = _from_environment(text, environment)
    if match := re.fullmatch(r"(\d+)/(\d+)", text):
        index, count = int(match[1]), int(match[2])
    elif text.isdecimal():
        if count not in (None, int(text)):
            raise DataError(f"--shard {text}: but the Slurm array has {count} tasks: give --shard I/{text}, or 'array'")
        count = int(text)
    elif text != "array":
        raise DataError(f"--shard must be I/N, N or 'array', got {text!r}")
    if index is None or count is None:
        raise DataError(
            f"--shard {text}: neither SLURM_ARRAY_TASK_ID with SLURM_ARRAY_TASK_COUNT nor JOB_COMPLETION_INDEX is "
            "set: give --shard I/N"
        )
    if not 0 <= index < count:
        raise DataError(f"--shard {text}: no part {index}; the {count} parts are numbered from 0")
    return index, count


def _from_environment(text: str, environment: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Index and count where they are set; a Slurm array may start at any number and have a step."""

    def number(name: str) -> int | None:
        value = environment.get(name) or None
        if value is not None and not value.isdecimal():
            raise DataError(f"--shard {text}: {name} is {value!r:.40}, which is not a number: give --shard I/N")
        return None if value is None else int(value)

    task, first, step, count = (number(f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "MIN", "STEP", "COUNT"))
    if task is None:
        return number("JOB_COMPLETION_INDEX"), None
    return (task - (first or 0)) // (step or 1), count
