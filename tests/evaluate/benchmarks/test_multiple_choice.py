"""Multiple choice: the published prompt, and every trap of extracting the letter by name."""

import re

import pytest
from support.time_limit import time_limit

from acc_megatron.errors import DataError
from acc_megatron.evaluate.benchmarks.multiple_choice import (
    MultipleChoice,
    extract_flexible,
    extract_strict,
    grade,
)

question = MultipleChoice().published

ROW = {
    "_id": "66f", "domain": "Single-Document QA", "sub_domain": "Legal", "difficulty": "hard", "length": "short",
    "question": "Who {won}?", "choice_A": "Ann", "choice_B": " Bob ", "choice_C": "Cid", "choice_D": "Dee",
    "answer": "B", "context": "Bob won.\n",
}  # fmt: skip


def test_the_prompt_is_the_published_one():
    # prompts/0shot.txt of THUDM/LongBench; pred.py strips the fields
    assert question(ROW, "x", len).messages[0]["content"] == (
        "Please read the following text and answer the question below.\n\n<text>\nBob won.\n</text>\n\n"
        "What is the correct answer to this question: Who {won}?\nChoices:\n(A) Ann\n(B) Bob\n(C) Cid\n(D) Dee\n\n"
        'Format your response as follows: "The correct answer is (insert answer here)".'
    )


def test_a_row_is_grouped_as_in_the_paper_of_the_benchmark():
    asked = question(ROW, "x", lambda _: 5000)
    assert asked.groups == {
        "domain": "Single-Document QA", "difficulty": "hard", "length": "short", "bin_tokens": "4096-8192",
    }  # fmt: skip
    assert asked.grade("The correct answer is (B).") == {"accuracy": 1, "flexible_accuracy": 1}


@pytest.mark.parametrize(
    "change", [{"answer": "E"}, {"answer": "AB"}, {"answer": ""}, {"context": None}, {"choice_D": 4}]
)
def test_a_row_of_another_shape_is_rejected_with_its_place(change):
    with pytest.raises(DataError, match=re.escape("rows.jsonl:7")):
        question(ROW | change, "rows.jsonl:7", len)


@pytest.mark.parametrize(
    ("response", "strict", "flexible"),
    [
        ("The correct answer is (B).", "B", "B"),
        ("The correct answer is B", "B", "B"),
        ("**The correct answer is (B)**", "B", "B"),
        ("The correct answer is **B**.", "B", "B"),
        ("the correct answer is (b)", None, "B"),
        ("Answer: B", None, "B"),
        ("The final answer is \\boxed{B}", None, "B"),
        ("So it is \\boxed{\\text{B}}.", None, "B"),
        ("I choose (B) because it fits.", None, "B"),
        ("B", None, "B"),
        ("The answer is option (B)", None, "B"),
        ("Answer: choice `B`", None, "B"),
        ("I weighed them.\n\n- B -\n\nDone.", None, "B"),
        ("(A) is wrong, (C) is wrong, so (B)", None, "B"),
        ("The answer is a matter of taste.", None, None),
        ("A careful reading shows that Bob won.", None, None),
        ("The answer is Bob", None, None),
        ("The correct answer is (insert answer here)", None, None),
        ("", None, None),
        ("(E)", None, None),
    ],
)  # fmt: skip
def test_trap_only_a_letter_that_is_meant_as_the_answer_is_extracted(response, strict, flexible):
    assert (extract_strict(response), extract_flexible(response)) == (strict, flexible)


def test_trap_the_strict_rule_takes_the_first_statement_and_the_flexible_one_the_last():
    text = "The correct answer is (A)? No. The correct answer is (B)."
    assert (extract_strict(text), extract_flexible(text)) == ("A", "B")


def test_trap_the_strict_rule_prefers_a_letter_in_parentheses():
    assert extract_strict("The correct answer is A or so. The correct answer is (B)") == "B"


@pytest.mark.parametrize("text", ["\n", " ", "*", "(", "answer is", "answer is option "])
def test_trap_a_repetitive_text_is_graded_in_linear_time(text):
    with time_limit(60):
        assert set(grade("The answer is" + text * 100_000, "B").values()) == {0}


def test_trap_thinking_is_not_an_answer():
    draft = "The correct answer is (A)"
    assert grade(f"<think>{draft}</think>The correct answer is (B)", "B") == {"accuracy": 1, "flexible_accuracy": 1}
    assert grade(f"<think>{draft}", "A") == {"accuracy": 0, "flexible_accuracy": 0}


def test_metrics_are_the_keys_that_the_grader_returns():
    assert set(MultipleChoice.metrics) == set(grade("", "A"))
