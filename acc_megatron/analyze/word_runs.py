"""Runs of words (n-grams) of questions, and the search for them in texts."""

from collections.abc import Iterable

from acc_megatron.data_tools.compile.near_duplicates import words_of


def word_runs(question: str, num_words: int) -> set[str]:
    """Every run of `num_words` words; a shorter question is one run, a question without a word has none."""
    words = words_of(question)
    size = min(num_words, len(words))
    return {" ".join(words[start : start + size]) for start in range(len(words) - size + 1)} if words else set()


class RunSearch:
    """Searches texts for given runs of words of any lengths."""

    def __init__(self, runs: Iterable[str]) -> None:
        self._runs = frozenset(runs)
        self._sizes: dict[str, set[int]] = {}  # by first word, since a run begins at few places of a text
        for run in self._runs:
            words = run.split(" ")
            self._sizes.setdefault(words[0], set()).add(len(words))

    def found_in(self, text: str) -> set[str]:
        """The runs that the text contains."""
        words = words_of(text)
        candidates = (
            " ".join(words[start : start + size])
            for start, word in enumerate(words)
            for size in self._sizes.get(word, ())
        )
        return {run for run in candidates if run in self._runs}
