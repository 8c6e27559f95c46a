"""`analyze overlap`: how close training data is to benchmark questions.

Contamination is measured by shared n-grams, similar embeddings and separability. N-grams are searched in the training
questions, and separately in all other text of a training row (contexts, reasoning, answers), which embeddings of
questions do not cover.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from acc_megatron.analyze.embeddings import Embed
from acc_megatron.analyze.question_texts import RowTexts, read_texts
from acc_megatron.analyze.results_format import EmbeddingScores, NgramScores, OverlapResult
from acc_megatron.analyze.separability import num_distinct, separability
from acc_megatron.analyze.word_runs import RunSearch, word_runs
from acc_megatron.data_tools.compile.near_duplicates import words_of
from acc_megatron.errors import ConfigError, DataError

QUESTION_CHARS = 3000  # the paper cuts questions to this length before it embeds them
_NEAREST = 10
T = TypeVar("T")


def analyze_overlap(
    training: Sequence[Path],
    benchmarks: dict[str, Path],
    *,
    embed: Embed | None,
    num_words: int = 13,
    similarity: float = 0.9,
    max_questions: int = 2000,
    seed: int = 0,
) -> tuple[OverlapResult, np.ndarray | None]:
    """Scores of each benchmark against all training rows, and the embeddings `[training + benchmarks, dim]`.

    A benchmark question is contaminated if the training text contains one of its runs of `num_words` words (Brown et
    al. 2020, appendix C, use 13), or if a training question has a cosine of at least `similarity`. At most
    `max_questions` of each side, drawn by seed, are embedded; n-grams cover all. A question with fewer words is one run
    and is counted under `shorter`: so short a run may also match by chance. Raises ConfigError and DataError.
    """
    if num_words < 1 or not 0 < similarity <= 1:
        raise ConfigError(
            f"num_words is {num_words} and similarity is {similarity}; num_words must be at least 1, and similarity "
            "above 0 and at most 1"
        )
    texts_of = {name: list(read_texts(path)) for name, path in benchmarks.items()}
    for name, texts in texts_of.items():
        if not texts:
            raise DataError(f"{benchmarks[name]} contains no question")
    runs_of = {name: [word_runs(text.question, num_words) for text in texts] for name, texts in texts_of.items()}
    search = RunSearch(run for runs in runs_of.values() for question in runs for run in question)
    in_questions: set[str] = set()
    in_rest: set[str] = set()
    questions: list[str] = []
    for path in training:
        for text in read_texts(path):
            questions.append(text.question)
            in_questions |= search.found_in(text.question)
            in_rest |= search.found_in(text.rest)
    if not questions:
        raise DataError("the training files contain no question")
    result: OverlapResult = {
        "training": {"files": [str(path) for path in training], "questions": len(questions)},
        "settings": {"num_words": num_words, "similarity": similarity, "max_questions": max_questions, "seed": seed},
        "benchmarks": {
            name: {
                "file": str(benchmarks[name]),
                "questions": len(texts),
                "shorter": sum(len(words_of(text.question)) < num_words for text in texts),
                "ngrams_in_questions": _ngram_scores(runs_of[name], in_questions, texts),
                "ngrams_in_other_text": _ngram_scores(runs_of[name], in_rest, texts),
            }
            for name, texts in texts_of.items()
        },
    }
    if embed is None:
        return result, None
    sampled = _sample(questions, max_questions, seed)
    vectors = [embed([question[:QUESTION_CHARS] for question in sampled])]
    result["training"]["embedded"] = len(sampled)
    for name, texts in texts_of.items():
        some = _sample(texts, max_questions, seed)
        vectors.append(embed([text.question[:QUESTION_CHARS] for text in some]))
        result["benchmarks"][name]["embeddings"] = _embedding_scores(
            vectors[0], vectors[-1], sampled, some, similarity, seed
        )
    return result, np.concatenate(vectors)


def _ngram_scores(runs: Sequence[set[str]], found: set[str], texts: Sequence[RowTexts]) -> NgramScores:
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
    texts: Sequence[RowTexts],
    similarity: float,
    seed: int,
) -> EmbeddingScores:
    cosines = benchmark @ training.T
    nearest = cosines.argmax(1)
    best = cosines.max(1)
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


def _sample(texts: Sequence[T], most: int, seed: int) -> list[T]:
    if len(texts) <= most:
        return list(texts)
    return [texts[k] for k in sorted(np.random.default_rng(seed).choice(len(texts), most, replace=False))]
