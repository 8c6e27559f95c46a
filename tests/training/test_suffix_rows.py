"""Which rows a last layer of supervised rows computes."""

from itertools import pairwise

import numpy as np
import pytest

from acc_megatron.training.suffix_rows import shared_documents, suffix_lengths


def test_a_document_computes_its_last_tokens_from_its_first_supervised_one_on() -> None:
    supervised = np.zeros(24, np.bool_)
    supervised[[5, 6, 12, 15, 23]] = True  # a hole, a first token, a last one, and a document without any
    assert suffix_lengths(supervised, (0, 8, 12, 20, 24), 1) == [3, 1, 8, 1]


@pytest.mark.parametrize("multiple", [1, 3, 8, 24])
def test_rows_are_filled_up_to_a_multiple_within_their_documents(multiple: int) -> None:
    generator = np.random.default_rng(multiple)
    bounds = (0, 1, 9, 24)
    for _ in range(50):
        supervised = generator.random(24) < generator.random()
        needed, lengths = suffix_lengths(supervised, bounds, 1), suffix_lengths(supervised, bounds, multiple)
        assert sum(lengths) % multiple == 0 and sum(lengths) - sum(needed) < multiple
        for (start, end), few, many in zip(pairwise(bounds), needed, lengths, strict=True):
            assert few <= many <= end - start
            assert not supervised[start : end - few].any()


def test_a_share_has_the_keys_of_its_documents_up_to_its_last_row_of_each() -> None:
    rows = np.array([6, 7, 9, 10, 11, 18, 19, 23])  # of documents that end at 8, 12, 20 and 24
    bounds = (0, 8, 12, 20, 24)
    assert shared_documents(rows[:4], bounds) == ([2, 2], [range(8), range(8, 11)])
    assert shared_documents(rows[4:], bounds) == ([1, 2, 1], [range(8, 12), range(12, 20), range(20, 24)])
