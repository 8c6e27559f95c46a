"""How near training data comes to benchmark questions: shared n-grams, similar embeddings, and separability.

Leakage is measured and not asserted. N-grams are looked for in the training questions, and apart from them in all
other text of a training row (contexts, reasoning, answers), where questions' embeddings would not see them.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acc_megatron.analyze.embeddings import Embed
from acc_megatron.data_tools.decontaminate import QUESTION_KEYS, words_of
from acc_megatron.data_tools.jsonl import BadRow
from acc_megatron.data_tools.row_files import rows_of
from acc_megatron.errors import ConfigError, DataError

QUESTION_CHARS = 3000  # as the paper cuts questions before it embeds them
_FOLDS = 5
_RIDGE = 1e-2
_NEAREST = 10
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Text:
    """A question and everything else that its row holds, each after where it stands."""

    place: str
    question: str
    rest: str


def read_texts(path: Path) -> Iterator[Text]:
    """The rows of a file; a chat under `prompt` asks with its last message. Raises DataError by place."""
    if not path.is_file():
        hint = ": it is a folder; give the file of rows in it, such as triples.jsonl" if path.is_dir() else ""
        raise DataError(f"no file of questions at {path}{hint}")
    for row in rows_of(path):
        where = f"{path.name}:{row.line}"
        if isinstance(row, BadRow):
            raise DataError(f"{where}: {row.reason}: {row.detail}")
        key = next((key for key in QUESTION_KEYS if isinstance(row.value.get(key), str)), None)
        if key is None:
            raise DataError(f"{where}: no question under {', '.join(QUESTION_KEYS)}; keys: {', '.join(row.value)}")
        question = _last_message(row.value[key])
        rest = "\n".join(_strings({name: value for name, value in row.value.items() if name != key}))
        yield Text(where, _SPACE.sub(" ", question).strip(), rest)


def analyze_overlap(
    training: Sequence[Path],
    benchmarks: dict[str, Path],
    *,
    embed: Embed | None,
    num_words: int = 13,
    similarity: float = 0.9,
    max_questions: int = 2000,
    seed: int = 0,
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Scores of each benchmark against all training rows, and the embeddings `[training + benchmarks, dim]`.

    A benchmark question is contaminated when one of its runs of `num_words` words stands in the training text
    (Brown et al. 2020, appendix C, take 13), or when a training question is as near as `similarity` (cosine). At most
    `max_questions` of each side, drawn by seed, are embedded; n-grams are of all. A question of fewer words is one
    run, counted under `shorter`: so short a run may also stand there by chance. Raises ConfigError and DataError.
    """
    if num_words < 1 or not 0 < similarity <= 1:
        raise ConfigError(f"num_words is {num_words} and similarity {similarity}: at least 1, and above 0 up to 1")
    asked = {name: list(read_texts(path)) for name, path in benchmarks.items()}
    for name, texts in asked.items():
        if not texts:
            raise DataError(f"{benchmarks[name]} holds no question")
    runs = {name: [_runs(text.question, num_words) for text in texts] for name, texts in asked.items()}
    wanted = Wanted(run for of in runs.values() for found in of for run in found)
    in_questions: set[str] = set()
    in_rest: set[str] = set()
    questions: list[str] = []
    for path in training:
        for text in read_texts(path):
            questions.append(text.question)
            in_questions |= wanted.inside(text.question)
            in_rest |= wanted.inside(text.rest)
    if not questions:
        raise DataError("the training files hold no question")
    result: dict[str, Any] = {
        "training": {"files": [str(path) for path in training], "questions": len(questions)},
        "settings": {"num_words": num_words, "similarity": similarity, "max_questions": max_questions, "seed": seed},
        "benchmarks": {},
    }
    for name, of in runs.items():
        result["benchmarks"][name] = {
            "file": str(benchmarks[name]),
            "questions": len(of),
            "shorter": sum(len(words_of(text.question)) < num_words for text in asked[name]),
            "ngrams_in_questions": _ngram_scores(of, in_questions, asked[name]),
            "ngrams_in_other_text": _ngram_scores(of, in_rest, asked[name]),
        }
    if embed is None:
        return result, None
    sampled = _sample(questions, max_questions, seed)
    vectors = [embed([question[:QUESTION_CHARS] for question in sampled])]
    result["training"]["embedded"] = len(sampled)
    for name, texts in asked.items():
        some = _sample(texts, max_questions, seed)
        vectors.append(embed([text.question[:QUESTION_CHARS] for text in some]))
        result["benchmarks"][name]["embeddings"] = _embedding_scores(
            vectors[0], vectors[-1], sampled, some, similarity, seed
        )
    return result, np.concatenate(vectors)


def _runs(question: str, num_words: int) -> set[str]:
    """Every run of `num_words` words; of a shorter question the whole, of one without a word nothing."""
    words = words_of(question)
    size = min(num_words, len(words))
    return {" ".join(words[start : start + size]) for start in range(len(words) - size + 1)} if words else set()


class Wanted:
    """Runs of words, of any lengths, to be looked for in texts."""

    def __init__(self, runs: Iterable[str]) -> None:
        self._runs = frozenset(runs)
        self._sizes: dict[str, set[int]] = {}  # by first word: few places of a text begin a run
        for run in self._runs:
            words = run.split(" ")
            self._sizes.setdefault(words[0], set()).add(len(words))

    def inside(self, text: str) -> set[str]:
        """Those that stand in a text."""
        words = words_of(text)
        here = (
            " ".join(words[start : start + size])
            for start, word in enumerate(words)
            for size in self._sizes.get(word, ())
        )
        return {run for run in here if run in self._runs}


def _last_message(text: str) -> str:
    """The last message of a chat written as JSON, as MRCR does; any other text as it is."""
    if not text.startswith("["):
        return text
    try:
        return str(json.loads(text)[-1]["content"])
    except (ValueError, LookupError, TypeError):
        return text


def _strings(value: Any) -> Iterator[str]:
    """Every text inside a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _ngram_scores(runs: Sequence[set[str]], found: set[str], texts: Sequence[Text]) -> dict[str, Any]:
    shares = np.array([len(run & found) / max(1, len(run)) for run in runs])
    worst = np.argsort(-shares, kind="stable")[:_NEAREST]
    return {
        "contaminated": int((shares > 0).sum()),
        "mean_share": float(shares.mean()),
        "worst": [{"place": texts[k].place, "share": float(shares[k])} for k in worst if shares[k] > 0],
    }


def _embedding_scores(
    training: np.ndarray,
    benchmark: np.ndarray,
    questions: Sequence[str],
    texts: Sequence[Text],
    similarity: float,
    seed: int,
) -> dict[str, Any]:
    near = benchmark @ training.T
    nearest = near.argmax(1)
    best = near.max(1)
    order = np.argsort(-best, kind="stable")[:_NEAREST]
    return {
        "embedded": len(texts),
        "distinct": num_distinct(benchmark),
        "contaminated": int((best >= similarity).sum()),
        "mean_nearest_cosine": float(best.mean()),
        "separability_auc": separability(training, benchmark, seed=seed),
        "nearest": [
            {
                "place": texts[k].place,
                "cosine": float(best[k]),
                "question": texts[k].question[:200],
                "training_question": questions[nearest[k]][:200],
            }
            for k in order
        ],
    }


def separability(ours: np.ndarray, theirs: np.ndarray, *, seed: int) -> float | None:
    """How well a linear classifier tells two sets of vectors `[texts, dim]` apart: held-out AUC, 0.5 for not at all.

    Ridge regression on -1 and 1 over 5 seeded folds; every vector is scored by the fold that did not see it, and the
    AUC is the mean of the folds' (Mann and Whitney's statistic). None where a side is smaller than the folds.
    """
    if min(len(ours), len(theirs)) < _FOLDS:
        return None
    rng = np.random.default_rng(seed)
    folds = np.concatenate([rng.permutation(np.arange(len(side)) % _FOLDS) for side in (ours, theirs)])
    vectors = np.concatenate([ours, theirs])
    vectors = np.concatenate([vectors, np.ones((len(vectors), 1))], axis=1)
    labels = np.repeat([-1.0, 1.0], [len(ours), len(theirs)])
    weights = np.repeat([1 / len(ours), 1 / len(theirs)], [len(ours), len(theirs)])
    found = []
    for fold in range(_FOLDS):
        seen = folds != fold
        weighted = vectors[seen] * weights[seen, None]
        gram = weighted.T @ vectors[seen] + _RIDGE / vectors.shape[1] * np.eye(vectors.shape[1])
        scores = vectors[~seen] @ np.linalg.solve(gram, weighted.T @ labels[seen])
        found.append(auc(scores[labels[~seen] > 0], scores[labels[~seen] < 0]))
    return float(np.mean(found))


def num_distinct(vectors: np.ndarray) -> int:
    """How many of unit vectors `[texts, dim]` are no twin of one before them: cosine below 1 - 1e-6.

    Questions that differ only past what the embedder reads are twins, as GraphWalks' are: they open alike.
    """
    twins = np.tril(vectors @ vectors.T > 1 - 1e-6, -1).any(1)
    return int((~twins).sum())


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The chance that a positive score is above a negative one, ties counting half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    upto = np.searchsorted(ordered, positive, "right")
    return float((below + upto).sum() / 2 / (len(positive) * len(negative)))


def _sample(texts: Sequence[Any], most: int, seed: int) -> list[Any]:
    if len(texts) <= most:
        return list(texts)
    return [texts[k] for k in sorted(np.random.default_rng(seed).choice(len(texts), most, replace=False))]
