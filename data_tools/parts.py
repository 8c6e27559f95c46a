"""Which part of a conversion this process is to make, said outright or by the batch system that started it."""

import re
from collections.abc import Mapping

from acc_megatron.errors import DataError


def parse_part(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """`(i, n)`, i from 0, of "i/n", of "n" (i from Slurm's array or a Kubernetes indexed job), or of "array" (Slurm).

    Raises DataError for anything else, and when the environment does not say what is left out.
    """
    index, count = _from_environment(environment)
    if match := re.fullmatch(r"(\d+)/(\d+)", text):
        index, count = int(match[1]), int(match[2])
    elif text.isdigit():
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


def _from_environment(environment: Mapping[str, str]) -> tuple[int | None, int | None]:
    if "SLURM_ARRAY_TASK_ID" in environment:
        first, count = (environment.get(f"SLURM_ARRAY_TASK_{name}") for name in ("MIN", "COUNT"))
        return int(environment["SLURM_ARRAY_TASK_ID"]) - int(first or 0), int(count) if count else None
    index = environment.get("JOB_COMPLETION_INDEX")
    return (int(index) if index else None), None
