"""How well two sets of embeddings can be separated."""

import numpy as np

_FOLDS = 5
_RIDGE = 1e-2


def separability(ours: np.ndarray, theirs: np.ndarray, *, seed: int) -> float | None:
    """How well a linear classifier separates two sets of vectors `[texts, dim]`: the held-out AUC, 0.5 for chance.

    Ridge regression on -1 and 1 in 5 seeded folds; each vector is scored by the model that was not fitted to it, and
    the result is the mean AUC of the folds (Mann and Whitney's statistic). None if a side has fewer vectors than folds.
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
    """Number of unit vectors `[texts, dim]` that do not repeat an earlier one (cosine above 1 - 1e-6).

    Questions that differ only beyond the text that the embedder reads have equal vectors, such as those of GraphWalks.
    """
    repeats = np.tril(vectors @ vectors.T > 1 - 1e-6, -1).any(1)
    return int((~repeats).sum())


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The probability that a positive score is above a negative one; ties count half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    upto = np.searchsorted(ordered, positive, "right")
    return float((below + upto).sum() / 2 / (len(positive) * len(negative)))
