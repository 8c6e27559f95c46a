"""The ground truth is found under the keys and in the shapes that data sets use."""

from typing import Any

import pytest

from acc_megatron.data_tools.sources.search.truth import find_truth
from acc_megatron.errors import Dropped


@pytest.mark.parametrize(
    ("row", "aliases"),
    [
        ({"answer": "Ann"}, []),
        ({"answers": ["Ann", "A. Lee"]}, ["A. Lee"]),
        ({"golden_answers": ["Ann"], "answer": "Bob"}, []),
        ({"answer": {"value": "Ann", "aliases": ["A. Lee"]}}, ["A. Lee"]),
        ({"answer": {"text": ["Ann"], "answer_start": [3]}}, []),
        ({"ground_truth": {"target": ["Ann", "A. Lee"]}}, ["A. Lee"]),
        ({"ground_truth": '{"target": "Ann"}'}, []),
        ({"reward_model": {"ground_truth": {"target": ["Ann"]}, "style": "rule"}, "answer": "Bob"}, []),
        ({"extra_info": {"answer": "Ann"}}, []),
        ({"metadata": '{"gold_answer": "Ann"}'}, []),
        ({"expected_answer": "Ann"}, []),
        ({"label": True, "answer": " Ann "}, []),
        ({"possible_answers": ["Ann", "A. Lee"]}, ["A. Lee"]),
        ({"answer": [["Ann"]]}, []),
        ({"Correct Answer": "Ann", "answer": "Bob"}, []),
        ({"goldAnswer": "Ann"}, []),
        ({"ground truth": "Ann"}, []),
        ({"expected_output": "Ann", "output": "Bob"}, []),
        ({"gts": {"target": ["Ann", "A. Lee"]}}, ["A. Lee"]),
        ({"answers": [{"text": "Ann"}, {"text": "A. Lee"}]}, ["A. Lee"]),
    ],
)
def test_the_truth_and_its_aliases_are_read(row: dict[str, Any], aliases: list[str]) -> None:
    if "reward_model" in row:
        del row["answer"]  # the row's own answer comes before that of its data set
    assert find_truth(row)[1:] == ("Ann", aliases)


@pytest.mark.parametrize("row", [{}, {"answer": None}, {"answer": True}, {"answer": [["a", "b"]]}, {"answer": " "}])
def test_a_row_without_one_truth_is_dropped(row: dict[str, Any]) -> None:
    with pytest.raises(Dropped, match="no_ground_truth"):
        find_truth(row)
