"""A new agent kind needs its own file and its registration; compile, filling, comparison and convert follow."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.compile.compile import compile_inputs
from acc_megatron.data_tools.compile.distractor_fill import parse_targets
from acc_megatron.data_tools.compile.near_duplicates import NearSettings
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.convert.convert import convert
from acc_megatron.data_tools.convert.shards import ConvertSettings
from acc_megatron.data_tools.schema import Piece, Provenance, Trajectory, Triple
from acc_megatron.data_tools.sources.agent_kind import AgentKind
from acc_megatron.data_tools.sources.container_test import ContainerTest
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.verify_answer import Verifier
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import Dropped


class LibraryAgent(AgentKind):
    """Reads books to answer a question; a row lists the books with a mark for those that were read."""

    name = "library"
    summary = "books that the agent read are evidence"
    request = "Answer with one word."
    failure_reasons = ("wrong_word",)

    def recognises(self, value: dict[str, Any]) -> bool:
        return "books" in value

    def read(self, row: Row, resources: Resources) -> Trajectory:
        if row.value["own_answer"] != row.value["truth"]:
            raise Dropped("wrong_word", row.value["own_answer"])
        books = [
            Piece(id=title, title=title, text=text, kind="evidence" if was_read else "distractor")
            for title, text, was_read in row.value["books"]
        ]
        return Trajectory(
            id=f"library-{row.line}",
            agent=self.name,
            question=f"{row.value['question']}\n\n{self.request}",
            evidence=tuple(book for book in books if book.kind == "evidence"),
            distractors=tuple(book for book in books if book.kind == "distractor"),
            reasoning="I read the book.",
            reasoning_source="agent",
            answer=row.value["truth"],
            ground_truth=row.value["truth"],
            provenance=Provenance(file=row.file, line=row.line, sha256=row.sha256),
        )

    def check_answer(self, triple: Triple, answer: str, resources: Resources, test: ContainerTest | None) -> None:
        if answer != triple.ground_truth:
            raise Dropped("wrong_word", answer)

    def lent_pieces(self, trajectory: Trajectory) -> Iterable[Piece]:
        return trajectory.evidence

    def answers_to_hide(self, trajectory: Trajectory) -> Iterable[str]:
        return (trajectory.ground_truth,)


def row_of(number: int, own_answer: str = "") -> dict[str, Any]:
    truth = f"word{number:02}"
    books = [
        (f"Book {number}", f"It says {truth}. " * 20, True),
        (f"Other book {number}", "Nothing. " * 20, False),
    ]
    return {"question": f"What does {number} say?", "truth": truth, "own_answer": own_answer or truth, "books": books}


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> LibraryAgent:
    """The agent kind, registered for one test."""
    kind = LibraryAgent()
    monkeypatch.setitem(AGENT_KINDS, kind.name, kind)
    return kind


def test_a_registered_agent_kind_compiles_fills_compares_and_converts(
    tmp_path: Path, tokenizer: Tokenizer, library: LibraryAgent
) -> None:
    pytest.importorskip("datasketch")
    rows = [*(row_of(number) for number in range(8)), row_of(8, own_answer="wrong")]
    (tmp_path / "library.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "evaluation.txt").write_text("What does 3 say?\n")
    summary = compile_inputs(
        [tmp_path / "library.jsonl"],
        tmp_path / "triples",
        agent="library",
        resources=[],
        settings=CompileSettings(fill_tokens=parse_targets(["library=700"])),
        tokenizer=tokenizer,
        near=NearSettings(evaluation=(tmp_path / "evaluation.txt",), evaluation_threshold=0.95),
    )
    counts = summary["by_agent"]["library"]
    assert counts["dropped"] == {"wrong_word": 1, "contaminated": 1}
    assert (counts["documents_out"], counts["pass_rate"]) == (7, 8 / 9)
    triples = [json.loads(line) for line in (tmp_path / "triples" / "triples.jsonl").read_text().splitlines()]
    for row in triples:
        lent = [piece for piece in row["context"] if piece["filled"]]
        assert lent and all(row["answer"] not in piece["text"] for piece in lent)
        assert 500 < row["settings"]["tokens"] <= 700
    manifest = convert([tmp_path / "triples"], tmp_path / "dataset", ConvertSettings())
    assert manifest["agents"]["library"]["documents"] == 7


def test_a_registered_agent_kind_verifies_answers(library: LibraryAgent) -> None:
    triple = Triple(
        id="t", agent="library", question="q", context=(), reasoning="r", answer="word01", ground_truth="word01"
    )
    Verifier(Resources()).check(triple, "word01")
    with pytest.raises(Dropped, match="wrong_word"):
        Verifier(Resources()).check(triple, "word02")
