"""Packing keeps documents whole, fills rows close to the lower bound, and refuses documents that are too long."""

import numpy as np
import pytest

from acc_megatron.data.packing import length_bucket, pack, round_up
from acc_megatron.errors import DataError


def test_every_document_is_in_exactly_one_row_and_no_row_exceeds_its_capacity() -> None:
    lengths = np.random.default_rng(0).integers(1, 4096, 500).tolist()
    rows = pack(lengths, 4096)
    assert sorted(document for row in rows for document in row) == list(range(500))
    assert max(sum(lengths[document] for document in row) for row in rows) <= 4096


def test_the_number_of_rows_is_within_one_percent_of_the_lower_bound_for_acc_lengths() -> None:
    rng = np.random.default_rng(1)
    search = rng.lognormal(np.log(42_000), 0.6, 337)
    swe = rng.uniform(6_000, 128_000, 437)
    sql = rng.lognormal(np.log(11_000), 0.8, 306)
    lengths = np.concatenate([search, swe, sql]).clip(2_000, 131_072).astype(int).tolist()
    assert len(pack(lengths, 131_072)) <= 1.01 * -(-sum(lengths) // 131_072)


def test_a_document_longer_than_a_row_is_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"document 1 needs 101 tokens including padding, but a row has 100"):
        pack([5, 101], 100)


def test_documents_of_equal_length_are_packed_in_the_order_of_their_numbers() -> None:
    assert pack([50, 50, 50, 50], 100) == [[0, 1], [2, 3]]


def test_round_up_returns_the_next_multiple() -> None:
    assert [round_up(value, 4) for value in (1, 4, 5)] == [4, 4, 8]


def rows_of_simple_best_fit(lengths: list[int], capacity: int) -> int:
    """The number of rows of best-fit decreasing, one document at a time."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - length)
        else:
            rooms.append(capacity - length)
    return len(rooms)


@pytest.mark.parametrize("seed", range(6))
def test_placing_equal_lengths_together_needs_as_many_rows_as_simple_best_fit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = (rng.integers(1, 40, 300) * rng.choice([1, 3, 16])).tolist()
    assert len(pack(lengths, 640)) == rows_of_simple_best_fit(lengths, 640)


def test_the_longest_document_is_rounded_up_to_few_buckets_that_every_context_size_divides() -> None:
    buckets = {length: length_bucket(length, 64, 1_000_000) for length in range(64, 131_073, 64)}
    assert all(length <= bucket < 2 * length for length, bucket in buckets.items())
    assert len(set(buckets.values())) == 12 and all(bucket % 64 == 0 for bucket in buckets.values())
    assert length_bucket(640, 64, 704) == 704, "never longer than the row"
