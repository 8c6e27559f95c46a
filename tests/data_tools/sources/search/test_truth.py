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


@pytest.mark.parametrize(
    "text", ['["Ann Lee", "A. Lee"]', "['Ann Lee', 'A. Lee']", "['Ann Lee' 'A. Lee']", "['Ann Lee'\n \"A. Lee\"]"]
)
def test_the_text_of_a_list_is_an_answer_with_its_aliases(text: str) -> None:
    assert find_truth({"golden_answers": text})[1:] == ("Ann Lee", ["A. Lee"])


@pytest.mark.parametrize("text", ["[Paris]", "[1] Ann", "[]x"])
def test_a_text_in_brackets_that_is_no_list_is_the_truth(text: str) -> None:
    assert find_truth({"answer": text})[1] == text


@pytest.mark.parametrize(
    "row",
    [
        {"gold_ans": "Ann Lee"}, {"expectedAnswers": ["Ann Lee"]}, {"truth": "Ann Lee"}, {"true_label": "Ann Lee"},
        {"qa": {"answer": "Ann Lee"}}, {"item": {"gold": "Ann Lee"}}, {"reward_spec": {"ground_truth": "Ann Lee"}},
    ],
)  # fmt: skip
def test_the_truth_is_found_under_names_of_such_words_and_in_objects_of_the_row(row: dict[str, Any]) -> None:
    assert find_truth(row)[1] == "Ann Lee"


@pytest.mark.parametrize("key", ["correct", "target_url", "reference_docs", "true_count", "label_text"])
def test_a_name_of_something_else_is_no_truth(key: str) -> None:
    with pytest.raises(Dropped, match="no_ground_truth"):
        find_truth({key: "Ann Lee"})
