"""Near-duplicates and evaluation questions are dropped with the name of what they resemble."""

import json
import random
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from acc_megatron.data_tools.compile.near_duplicates import (
    NearDuplicates,
    NearSettings,
    Signer,
    evaluation_questions,
    shingles,
)
from acc_megatron.data_tools.schema import Piece, Provenance, Trajectory
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS
from acc_megatron.errors import ConfigError, DataError, Dropped, EnvironmentProblem

WORDS = [f"word{i}" for i in range(500)]


def text(seed: int, length: int = 60) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def run_of(name: str, question: str, evidence: str = "", agent: str = "search") -> Trajectory:
    return Trajectory(
        id=name,
        agent=agent,
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


class Checks:
    """Signs a run as a worker does, and compares it as the merge does."""

    def __init__(self, settings: NearSettings) -> None:
        self._signer, self._near = Signer(settings), NearDuplicates(settings)

    def check(self, run: Trajectory) -> None:
        self._near.check(run.id, self._signer.signatures(run))


def test_a_near_question_is_dropped_with_the_name_of_the_first() -> None:
    pytest.importorskip("datasketch")
    near = Checks(NearSettings(questions=0.7))
    near.check(run_of("one", text(1)))
    almost = text(1).replace(" ", "  ").upper() + " and"
    assert jaccard(text(1), almost, 3) > 0.9
    with pytest.raises(Dropped, match=r"near_duplicate_question: similarity 0\.9.* to one"):
        near.check(run_of("two", almost))
    half = f"{text(1)} {text(2)}"
    assert jaccard(text(1), half, 3) < 0.6
    near.check(run_of("three", half))


@pytest.mark.parametrize("agent", ["sql", "swe"])
def test_the_request_at_the_end_of_a_question_is_not_compared(tmp_path: Path, agent: str) -> None:
    pytest.importorskip("datasketch")
    (tmp_path / "eval.txt").write_text("How many singers do we have?\n")
    request = AGENT_KINDS[agent].request
    near = Checks(NearSettings(questions=0.5, evaluation=(tmp_path / "eval.txt",)))
    with pytest.raises(Dropped, match=r"contaminated: similarity 1.00 to eval.txt:1"):
        near.check(run_of("x", f"How many singers do we have?\n\n{request}", agent=agent))
    near.check(run_of("one", f"What is the oldest car?\n\n{request}", agent=agent))
    near.check(run_of("two", f"List all the dogs.\n\n{request}", agent=agent))


def test_questions_in_a_script_without_spaces_are_compared_by_characters() -> None:
    pytest.importorskip("datasketch")
    near = Checks(NearSettings(questions=0.7))
    near.check(run_of("one", "世界上最高的山峰的第一个登顶者出生于哪一个国家"))
    with pytest.raises(Dropped, match="near_duplicate_question"):
        near.check(run_of("two", "请问世界上最高的山峰的第一个登顶者出生于哪一个国家"))
    near.check(run_of("three", "世界上最长的河流流经哪几个国家和哪些主要的城市"))


def test_near_contexts_are_dropped_and_others_are_not() -> None:
    pytest.importorskip("datasketch")
    near = Checks(NearSettings(contexts=0.8))
    near.check(run_of("one", "Q", text(1, 2_000)))
    with pytest.raises(Dropped, match="near_duplicate_context"):
        near.check(run_of("two", "other", f"{text(1, 2_000)} more words here"))
    for number in range(3, 30):
        near.check(run_of(str(number), "Q", text(number, 200)))


def test_a_similarity_equal_to_the_threshold_is_near() -> None:
    pytest.importorskip("datasketch")
    near = Checks(NearSettings(questions=1.0))
    near.check(run_of("one", text(1)))
    with pytest.raises(Dropped, match=r"near_duplicate_question: similarity 1\.00 to one"):
        near.check(run_of("two", text(1)))


def test_contexts_are_compared_by_their_evidence_only() -> None:
    pytest.importorskip("datasketch")
    near = Checks(NearSettings(contexts=0.8))
    for name, seed in (("one", 1), ("two", 2)):
        page = Piece(id="d", title="d", text=text(seed, 2_000), kind="distractor")
        run = replace(run_of(name, "Q", text(3, 200)), distractors=(page,))
        with pytest.raises(Dropped, match="near_duplicate_context") if name == "two" else nullcontext():
            near.check(run)


def test_questions_of_an_evaluation_are_dropped(tmp_path: Path) -> None:
    pytest.importorskip("datasketch")
    lines = [{"prompt": text(5)}, {"question": text(6), "id": 1}]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "eval.txt").write_text(f"{text(7)}\n\n{text(8)}\n")
    near = Checks(NearSettings(evaluation=(tmp_path / "eval.jsonl", tmp_path / "eval.txt")))
    for seed, place in ((5, "eval.jsonl:1"), (6, "eval.jsonl:2"), (7, "eval.txt:1"), (8, "eval.txt:3")):
        with pytest.raises(Dropped, match=rf"contaminated: similarity 1.00 to {place}"):
            near.check(run_of("x", text(seed)))
    near.check(run_of("fine", text(9)))
    near.check(run_of("fine again", text(9)))  # without --dedupe-questions a question can be repeated


def test_invalid_settings_and_unreadable_questions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        NearSettings(questions=80)
    (tmp_path / "eval.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(DataError, match=r"eval.jsonl:1: no question in .*keys: text"):
        list(evaluation_questions(tmp_path / "eval.jsonl"))
    (tmp_path / "eval.jsonl").write_text("{broken\n")
    with pytest.raises(DataError, match=r"eval.jsonl:1: broken_json"):
        list(evaluation_questions(tmp_path / "eval.jsonl"))
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'datasketch>=2'"):
        Signer(NearSettings(contexts=0.5)).signatures(run_of("x", text(1)))
