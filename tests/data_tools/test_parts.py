"""The part a process makes is read strictly, from the option or from the batch system."""

import pytest

from acc_megatron.data_tools.parts import parse_part
from acc_megatron.errors import DataError

SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "4"}


def test_the_part_is_said_outright_or_by_the_batch_system() -> None:
    assert parse_part("2/8", {}) == (2, 8)
    assert parse_part("2/8", SLURM) == (2, 8), "what is said outright holds"
    assert parse_part("array", SLURM) == (2, 4)
    assert parse_part("4", SLURM) == (2, 4)
    assert parse_part("8", {"JOB_COMPLETION_INDEX": "3"}) == (3, 8)


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("8/8", {}, "part 8 of 8; parts count from 0 to 7"),
        ("0/0", {}, "part 0 of 0"),
        ("one", {}, "is not I/N, N or 'array'"),
        ("-1/2", {}, "is not I/N"),
        ("8", {}, "give --shard I/N"),
        ("array", {"JOB_COMPLETION_INDEX": "3"}, "give --shard I/N"),
        ("2", {"JOB_COMPLETION_INDEX": "3"}, "part 3 of 2"),
    ],
)
def test_anything_else_is_refused(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_part(text, environment)
