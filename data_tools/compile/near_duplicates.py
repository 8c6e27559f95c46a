"""Near-duplicates and contamination: drops runs that resemble an earlier run or an evaluation question.

Two texts are near if the Jaccard similarity of their word shingles, estimated by MinHash (datasketch, extra `dedupe`),
is at least the threshold. The request for the form of the answer is not part of a question, and each character of an
unspaced script is a word. Locality-sensitive hashing proposes the pairs and can miss a pair close to the threshold.
Signatures stay in memory, about 2 KB for each document.
"""

import importlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.common.atomic_files import sha256_file
from acc_megatron.common.json_rows import BadRow, read_lines
from acc_megatron.data_tools.rows.row_files import row_file_kind, rows_of
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS
from acc_megatron.errors import ConfigError, DataError, Dropped
from acc_megatron.optional import missing_package

QUESTION_KEYS = ("question", "prompt", "problem_statement", "query", "input")
_NUM_PERM, _SEED, _SCHEME = 256, 1, "affine32"  # of MinHash in datasketch 2
SIGNATURES_SHAPE = (2, _NUM_PERM)
_MAX_LSH_THRESHOLD = 0.95  # datasketch refuses thresholds close to 1; the estimate decides in any case
_QUESTION_WORDS, _CONTEXT_WORDS = 3, 8  # words in a shingle
# Chinese and Japanese put no spaces between words: there each character is one
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class NearSettings:
    """Thresholds in (0, 1], or None for no check; `evaluation` are files with the questions of evaluations."""

    questions: float | None = None
    contexts: float | None = None
    evaluation: tuple[Path, ...] = ()
    evaluation_threshold: float = 0.6

    def __post_init__(self) -> None:
        for value in (self.questions, self.contexts, self.evaluation_threshold):
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"a similarity threshold must be above 0 and at most 1, got {value}")

    @property
    def is_on(self) -> bool:
        """Whether any check is asked for."""
        return self.questions is not None or self.contexts is not None or bool(self.evaluation)

    def as_dict(self) -> dict[str, Any]:
        """The thresholds, and each evaluation file with its SHA-256, for a manifest."""
        files = [{"file": path.name, "sha256": sha256_file(path)} for path in self.evaluation]
        return asdict(self) | {"evaluation": files}


class Signer:
    """Computes the signatures of trajectories; raises EnvironmentProblem if datasketch is not installed."""

    def __init__(self, settings: NearSettings) -> None:
        _datasketch()
        self._settings = settings
        self._evaluation = _Index(settings.evaluation_threshold) if settings.evaluation else None
        for path in settings.evaluation:
            for place, question in evaluation_questions(path):
                assert self._evaluation is not None
                self._evaluation.add(place, signature_of(question, _QUESTION_WORDS))

    def signatures(self, trajectory: Trajectory) -> np.ndarray:
        """The signatures `[2, 256]` uint32 of question and evidence; zeros for one that no setting asks for.

        Raises Dropped('contaminated') for a question near one of an evaluation.
        """
        question = AGENT_KINDS[trajectory.agent].comparable_question(trajectory)
        signatures = np.zeros(SIGNATURES_SHAPE, np.uint32)
        if self._evaluation or self._settings.questions:
            signatures[0] = signature_of(question, _QUESTION_WORDS)
        if self._evaluation:
            _need_distant("contaminated", self._evaluation, signatures[0])
        if self._settings.contexts:
            signatures[1] = signature_of("\n".join(piece.text for piece in trajectory.evidence), _CONTEXT_WORDS)
        return signatures


class NearDuplicates:
    """Compares trajectories, one after the other, with the earlier ones."""

    def __init__(self, settings: NearSettings) -> None:
        self._questions = _Index(settings.questions) if settings.questions else None
        self._contexts = _Index(settings.contexts) if settings.contexts else None

    def check(self, name: str, signatures: np.ndarray) -> None:
        """Raise Dropped for a trajectory near an earlier one; otherwise remember it."""
        checks = ("near_duplicate_question", self._questions), ("near_duplicate_context", self._contexts)
        for (reason, index), signature in zip(checks, signatures, strict=True):
            if index:
                _need_distant(reason, index, signature)
        for (_, index), signature in zip(checks, signatures, strict=True):
            if index:
                index.add(name, signature)


def _need_distant(reason: str, index: "_Index", signature: np.ndarray) -> None:
    if found := index.nearest(signature):
        raise Dropped(reason, f"similarity {found[1]:.2f} to {found[0]}")


class _Index:
    """The signatures of named texts."""

    def __init__(self, threshold: float) -> None:
        self._library = _datasketch()
        self._threshold = threshold
        self._lsh = self._library.MinHashLSH(threshold=min(threshold, _MAX_LSH_THRESHOLD), num_perm=_NUM_PERM)
        self._signatures: dict[str, Any] = {}

    def add(self, name: str, signature: np.ndarray) -> None:
        """Remember a text unless its name is known."""
        if name not in self._signatures:
            self._signatures[name] = self._hash(signature)
            self._lsh.insert(name, self._signatures[name])

    def nearest(self, signature: np.ndarray) -> tuple[str, float] | None:
        """Name and similarity of the most similar text, if its similarity is at least the threshold."""
        hashed = self._hash(signature)
        similarities = [(self._signatures[name].jaccard(hashed), name) for name in self._lsh.query(hashed)]
        similarity, name = max(similarities, default=(0.0, ""))
        return (name, similarity) if similarity >= self._threshold else None

    def _hash(self, signature: np.ndarray) -> Any:
        return self._library.LeanMinHash(seed=_SEED, hashvalues=signature, scheme=_SCHEME)


def signature_of(text: str, num_words: int) -> np.ndarray:
    """The MinHash signature `[256]` uint32 of the shingles of a text."""
    found = _datasketch().MinHash(num_perm=_NUM_PERM, seed=_SEED, scheme=_SCHEME)
    found.update_batch(sorted(shingles(text, num_words)))
    return np.asarray(found.hashvalues, np.uint32)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; each Han or kana character is a word."""
    return _WORD.findall(text.casefold())


def shingles(text: str, num_words: int) -> set[bytes]:
    """Every sequence of `num_words` words, in lower case; a shorter text is one shingle."""
    words = words_of(text)
    starts = range(max(1, len(words) - num_words + 1))
    return {" ".join(words[start : start + num_words]).encode() for start in starts}


def evaluation_questions(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of each question: from QUESTION_KEYS of rows, or the lines of a text file. Raises DataError."""
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
            raise DataError(
                f"{where}: no question in {', '.join(QUESTION_KEYS)}; the row's keys: {', '.join(row.value)}"
            )
        yield where, found[0]


def _datasketch() -> Any:
    try:
        return importlib.import_module("datasketch")
    except ModuleNotFoundError as error:
        options = "omit --dedupe-questions, --dedupe-contexts and --decontaminate"
        raise missing_package("datasketch", "the search for near-duplicates", otherwise=options) from error
