"""Packing: whole documents, no row over capacity, density near the lower bound, refusal instead of a cut."""

import numpy as np
import pytest

from acc_megatron.data.packing import pack, round_up
from acc_megatron.errors import DataError


def test_every_document_is_in_exactly_one_row_and_no_row_is_over_capacity() -> None:
    lengths = np.random.default_rng(0).integers(1, 4096, 500).tolist()
    rows = pack(lengths, 4096)
    assert sorted(document for row in rows for document in row) == list(range(500))
    assert max(sum(lengths[document] for document in row) for row in rows) <= 4096


def test_rows_are_at_most_one_percent_over_the_lower_bound_on_the_acc_mix() -> None:
    rng = np.random.default_rng(1)
    search = rng.lognormal(np.log(42_000), 0.6, 337)
    swe = rng.uniform(6_000, 128_000, 437)
    sql = rng.lognormal(np.log(11_000), 0.8, 306)
    lengths = np.concatenate([search, swe, sql]).clip(2_000, 131_072).astype(int).tolist()
    assert len(pack(lengths, 131_072)) <= 1.01 * -(-sum(lengths) // 131_072)


def test_a_document_longer_than_a_row_is_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"document 1 needs 101 tokens .* a row holds 100"):
        pack([5, 101], 100)


def test_equal_lengths_pack_in_the_order_of_their_numbers() -> None:
    assert pack([50, 50, 50, 50], 100) == [[0, 1], [2, 3]]


def test_round_up_is_the_next_multiple() -> None:
    assert [round_up(value, 4) for value in (1, 4, 5)] == [4, 4, 8]


def plain_best_fit(lengths: list[int], capacity: int) -> int:
    """The number of rows of best-fit decreasing, one document after the other."""
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
def test_placing_equal_lengths_together_needs_the_rows_of_plain_best_fit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = (rng.integers(1, 40, 300) * rng.choice([1, 3, 16])).tolist()
    assert len(pack(lengths, 640)) == plain_best_fit(lengths, 640)
