"""The part that a process makes is read strictly from the option and the batch system."""

import pytest

from acc_megatron.data_tools.sharding.job_part import parse_part
from acc_megatron.errors import DataError

SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "4"}


def test_the_part_is_given_by_the_user_or_the_batch_system() -> None:
    assert parse_part("2/8", {}) == (2, 8)
    assert parse_part("2/8", SLURM) == (2, 8), "explicit numbers win"
    assert parse_part("array", SLURM) == (2, 4)
    assert parse_part("4", SLURM) == (2, 4)
    assert parse_part("8", {"JOB_COMPLETION_INDEX": "3"}) == (3, 8)


@pytest.mark.parametrize(
    ("first", "last", "step"), [(0, 7, 1), (1, 8, 1), (1, 9, 2), (10, 40, 10), (0, 0, 1), (3, 8, 4)]
)
def test_the_tasks_of_any_slurm_array_make_each_part_once(first: int, last: int, step: int) -> None:
    """As `sbatch --array=FIRST-LAST:STEP` sets them."""
    tasks = range(first, last + 1, step)
    array = {"MIN": tasks[0], "MAX": tasks[-1], "STEP": step, "COUNT": len(tasks)}
    parts = [
        parse_part("array", {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in (array | {"ID": task}).items()})
        for task in tasks
    ]
    assert parts == [(index, len(tasks)) for index in range(len(tasks))]


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("8/8", {}, "no part 8; the 8 parts are numbered from 0"),
        ("0/0", {}, "no part 0; the 0 parts"),
        ("one", {}, "must be I/N, N or 'array', got 'one'"),
        ("-1/2", {}, "must be I/N"),
        ("8", {}, "give --shard I/N"),
        ("array", {"JOB_COMPLETION_INDEX": "3"}, "give --shard I/N"),
        ("2", {"JOB_COMPLETION_INDEX": "3"}, "no part 3; the 2 parts"),
        ("8", SLURM, "the Slurm array has 4 tasks: give --shard I/8, or 'array'"),  # some tasks of it started again
        ("array", SLURM | {"SLURM_ARRAY_TASK_ID": "9"}, "no part 4; the 4 parts"),
        ("8", {"JOB_COMPLETION_INDEX": "x"}, "JOB_COMPLETION_INDEX is 'x', which is not a number"),
    ],
)
def test_other_values_are_refused(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_part(text, environment)
