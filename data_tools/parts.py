"""Which part of a conversion this process is to make, said outright or by the batch system that started it."""

import re
from collections.abc import Mapping

from acc_megatron.errors import DataError


def parse_part(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """`(i, n)`, i from 0, of "i/n", of "n" (i from Slurm's array or a Kubernetes indexed job), or of "array" (Slurm).

    Raises DataError for anything else, and when the environment does not say what is left out.
    """
    index, count = _from_environment(text, environment)
    if match := re.fullmatch(r"(\d+)/(\d+)", text):
        index, count = int(match[1]), int(match[2])
    elif text.isdecimal():
        if count not in (None, int(text)):
            raise DataError(f"--shard {text}: the Slurm array has {count} tasks: give --shard I/{text}, or 'array'")
        count = int(text)
    elif text != "array":
        raise DataError(f"--shard {text!r} is not I/N, N or 'array'")
    if index is None or count is None:
        raise DataError(
            f"--shard {text}: no SLURM_ARRAY_TASK_ID with SLURM_ARRAY_TASK_COUNT or JOB_COMPLETION_INDEX says the "
            "rest: give --shard I/N"
        )
    if not 0 <= index < count:
        raise DataError(f"--shard {text}: part {index} of {count}; parts count from 0 to {count - 1}")
    return index, count


def _from_environment(text: str, environment: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Index and count as far as they are said; a Slurm array may begin anywhere and go in steps."""

    def number(name: str) -> int | None:
        value = environment.get(name) or None
        if value is not None and not value.isdecimal():
            raise DataError(f"--shard {text}: {name} is {value!r:.40}, no number: give --shard I/N")
        return None if value is None else int(value)

    task, first, step, count = (number(f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "MIN", "STEP", "COUNT"))
    if task is None:
        return number("JOB_COMPLETION_INDEX"), None
    return (task - (first or 0)) // (step or 1), count
