"""Near-duplicates and evaluation questions are left out with the name of what they resemble."""

import json
import random
import sys
from pathlib import Path

import pytest

from acc_megatron.data_tools.decontaminate import NearDuplicates, NearSettings, evaluation_questions, shingles
from acc_megatron.data_tools.schema import Dropped, Piece, Provenance, Trajectory
from acc_megatron.data_tools.sources.swe import REQUEST
from acc_megatron.data_tools.table_text import ANSWER_FORM
from acc_megatron.errors import ConfigError, DataError, EnvironmentProblem

WORDS = [f"word{i}" for i in range(500)]


def text(seed: int, length: int = 60) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def run_of(name: str, question: str, evidence: str = "") -> Trajectory:
    return Trajectory(
        id=name,
        agent="search",
        question=question,
        evidence=(Piece(id="e", title="e", text=evidence or text(sum(name.encode())), kind="evidence"),),
        distractors=(),
        reasoning="R",
        reasoning_source="agent",
        answer="A",
        ground_truth="A",
        provenance=Provenance(file="f", line=1, sha256="0"),
    )


def jaccard(one: str, two: str, num_words: int) -> float:
    a, b = shingles(one, num_words), shingles(two, num_words)
    return len(a & b) / len(a | b)


def test_a_near_question_is_dropped_by_the_name_of_the_first() -> None:
    pytest.importorskip("datasketch")
    near = NearDuplicates(NearSettings(questions=0.7))
    near.check(run_of("one", text(1)))
    almost = text(1).replace(" ", "  ").upper() + " and"
    assert jaccard(text(1), almost, 3) > 0.9
    with pytest.raises(Dropped, match=r"near_duplicate_question: similarity 0\.9.* to one"):
        near.check(run_of("two", almost))
    half = f"{text(1)} {text(2)}"
    assert jaccard(text(1), half, 3) < 0.6
    near.check(run_of("three", half))


@pytest.mark.parametrize("request_text", [ANSWER_FORM, REQUEST])
def test_what_is_asked_of_the_form_of_an_answer_is_no_part_of_a_question(tmp_path: Path, request_text: str) -> None:
    pytest.importorskip("datasketch")
    (tmp_path / "eval.txt").write_text("How many singers do we have?\n")
    near = NearDuplicates(NearSettings(questions=0.5, evaluation=(tmp_path / "eval.txt",)))
    with pytest.raises(Dropped, match=r"contaminated: similarity 1.00 to eval.txt:1"):
        near.check(run_of("x", f"How many singers do we have?\n\n{request_text}"))
    near.check(run_of("one", f"What is the oldest car?\n\n{request_text}"))
    near.check(run_of("two", f"List all the dogs.\n\n{request_text}"))


def test_questions_in_a_script_without_blanks_are_near_or_not() -> None:
    pytest.importorskip("datasketch")
    near = NearDuplicates(NearSettings(questions=0.7))
    near.check(run_of("one", "世界上最高的山峰的第一个登顶者出生于哪一个国家"))
    with pytest.raises(Dropped, match="near_duplicate_question"):
        near.check(run_of("two", "请问世界上最高的山峰的第一个登顶者出生于哪一个国家"))
    near.check(run_of("three", "世界上最长的河流流经哪几个国家和哪些主要的城市"))


def test_near_contexts_are_dropped_and_others_are_not() -> None:
    pytest.importorskip("datasketch")
    near = NearDuplicates(NearSettings(contexts=0.8))
    near.check(run_of("one", "Q", text(1, 2_000)))
    with pytest.raises(Dropped, match="near_duplicate_context"):
        near.check(run_of("two", "other", f"{text(1, 2_000)} more words here"))
    for number in range(3, 30):
        near.check(run_of(str(number), "Q", text(number, 200)))


def test_questions_of_an_evaluation_are_kept_out(tmp_path: Path) -> None:
    pytest.importorskip("datasketch")
    lines = [{"prompt": text(5)}, {"question": text(6), "id": 1}]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "eval.txt").write_text(f"{text(7)}\n\n{text(8)}\n")
    near = NearDuplicates(NearSettings(evaluation=(tmp_path / "eval.jsonl", tmp_path / "eval.txt")))
    for seed, place in ((5, "eval.jsonl:1"), (6, "eval.jsonl:2"), (7, "eval.txt:1"), (8, "eval.txt:3")):
        with pytest.raises(Dropped, match=rf"contaminated: similarity 1.00 to {place}"):
            near.check(run_of("x", text(seed)))
    near.check(run_of("fine", text(9)))
    near.check(run_of("fine again", text(9)))  # without --dedupe-questions a question may come twice


def test_what_cannot_be_checked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        NearSettings(questions=80)
    (tmp_path / "eval.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(DataError, match=r"eval.jsonl:1: no question under .*keys: text"):
        list(evaluation_questions(tmp_path / "eval.jsonl"))
    (tmp_path / "eval.jsonl").write_text("{broken\n")
    with pytest.raises(DataError, match=r"eval.jsonl:1: broken_json"):
        list(evaluation_questions(tmp_path / "eval.jsonl"))
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install acc-megatron\[dedupe\]"):
        NearDuplicates(NearSettings(contexts=0.5))
