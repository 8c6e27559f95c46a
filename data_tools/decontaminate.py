"""Leaving out near-duplicates and what resembles evaluation questions, by MinHash (datasketch, extra `dedupe`).

Two texts are near when the Jaccard similarity of their word shingles reaches a threshold; what we ask of an answer's
form is no part of a question, and each character of an unspaced script is a word. Candidates come from
locality-sensitive hashing, which may miss a pair near the threshold; a candidate is then judged by its MinHash
estimate. Signatures are kept in memory, about 2 KB a document.
"""

import importlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acc_megatron.data_tools.atomic import sha256_file
from acc_megatron.data_tools.jsonl import BadRow, read_lines
from acc_megatron.data_tools.row_files import row_file_kind, rows_of
from acc_megatron.data_tools.schema import Dropped, Trajectory
from acc_megatron.data_tools.sources.swe import REQUEST
from acc_megatron.data_tools.table_text import ANSWER_FORM
from acc_megatron.errors import ConfigError, DataError, EnvironmentProblem

QUESTION_KEYS = ("question", "prompt", "problem_statement", "query", "input")
_NUM_PERM = 256
_QUESTION_WORDS, _CONTEXT_WORDS = 3, 8  # words in a shingle
# Chinese and Japanese put no spaces between words: there each character is one
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_REQUESTS = (ANSWER_FORM, REQUEST)  # sentences that end the questions of every SQL and of every SWE run


@dataclass(frozen=True, slots=True, kw_only=True)
class NearSettings:
    """Thresholds between 0 and 1; None leaves a check out. `evaluation` are files of questions to keep away from."""

    questions: float | None = None
    contexts: float | None = None
    evaluation: tuple[Path, ...] = ()
    evaluation_threshold: float = 0.6

    def __post_init__(self) -> None:
        for value in (self.questions, self.contexts, self.evaluation_threshold):
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"a threshold of similarity lies above 0 and at most at 1, got {value}")

    @property
    def is_on(self) -> bool:
        """Whether there is anything to check."""
        return self.questions is not None or self.contexts is not None or bool(self.evaluation)

    def as_dict(self) -> dict[str, Any]:
        """For a manifest: the thresholds, and each evaluation file with its SHA-256."""
        files = [{"file": path.name, "sha256": sha256_file(path)} for path in self.evaluation]
        return asdict(self) | {"evaluation": files}


class NearDuplicates:
    """Judges trajectories one after the other; raises EnvironmentProblem where datasketch is not installed."""

    def __init__(self, settings: NearSettings) -> None:
        self._evaluation = _Index(settings.evaluation_threshold, _QUESTION_WORDS) if settings.evaluation else None
        self._questions = _Index(settings.questions, _QUESTION_WORDS) if settings.questions else None
        self._contexts = _Index(settings.contexts, _CONTEXT_WORDS) if settings.contexts else None
        for path in settings.evaluation:
            for place, question in evaluation_questions(path):
                assert self._evaluation is not None
                self._evaluation.add(place, question)

    def check(self, trajectory: Trajectory) -> None:
        """Raise Dropped for a trajectory near an earlier one or an evaluation question; else remember it."""
        question = trajectory.question
        for request in _REQUESTS:
            question = question.removesuffix(request)
        checks = (
            ("contaminated", self._evaluation, question),
            ("near_duplicate_question", self._questions, question),
            ("near_duplicate_context", self._contexts, "\n".join(piece.text for piece in trajectory.evidence)),
        )
        for reason, index, text in checks:
            found = index.nearest(text) if index else None
            if found:
                raise Dropped(reason, f"similarity {found[1]:.2f} to {found[0]}")
        for index, text in ((self._questions, checks[1][2]), (self._contexts, checks[2][2])):
            if index:
                index.add(trajectory.id, text)


class _Index:
    """Signatures of texts by name."""

    def __init__(self, threshold: float, num_words: int) -> None:
        self._library = _datasketch()
        self._threshold, self._num_words = threshold, num_words
        self._lsh = self._library.MinHashLSH(threshold=threshold, num_perm=_NUM_PERM)
        self._signatures: dict[str, Any] = {}

    def add(self, name: str, text: str) -> None:
        """Remember a text; the first under a name stays."""
        if name not in self._signatures:
            self._signatures[name] = self._signature(text)
            self._lsh.insert(name, self._signatures[name])

    def nearest(self, text: str) -> tuple[str, float] | None:
        """Name and similarity of the nearest text remembered, if it reaches the threshold."""
        signature = self._signature(text)
        similarities = [(self._signatures[name].jaccard(signature), name) for name in self._lsh.query(signature)]
        similarity, name = max(similarities, default=(0.0, ""))
        return (name, similarity) if similarity >= self._threshold else None

    def _signature(self, text: str) -> Any:
        signature = self._library.MinHash(num_perm=_NUM_PERM)
        signature.update_batch(sorted(shingles(text, self._num_words)))
        return signature


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without what stands between them; a Han or kana character is a word."""
    return _WORD.findall(text.casefold())


def shingles(text: str, num_words: int) -> set[bytes]:
    """Every run of `num_words` words, in lower case; a shorter text is one shingle."""
    words = words_of(text)
    starts = range(max(1, len(words) - num_words + 1))
    return {" ".join(words[start : start + num_words]).encode() for start in starts}


def evaluation_questions(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of each question: rows with one of QUESTION_KEYS, or any other file a question a line."""
    if row_file_kind(path) is None:
        for line in read_lines(path):
            if plain := (line.data or b"").decode(errors="replace").strip():
                yield f"{path.name}:{line.number}", plain
        return
    for row in rows_of(path):
        where = f"{path.name}:{row.line}"
        if isinstance(row, BadRow):
            raise DataError(f"{where}: {row.reason}: {row.detail}")
        found = [row.value[key] for key in QUESTION_KEYS if isinstance(row.value.get(key), str)]
        if not found:
            raise DataError(f"{where}: no question under {', '.join(QUESTION_KEYS)}; keys: {', '.join(row.value)}")
        yield where, found[0]


def _datasketch() -> Any:
    try:
        return importlib.import_module("datasketch")
    except ImportError:
        raise EnvironmentProblem(
            "near-duplicates need datasketch: run 'pip install acc-megatron[dedupe]', or leave these options out"
        ) from None
