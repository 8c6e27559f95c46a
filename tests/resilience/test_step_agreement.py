"""The all-reduce of a step: every rank learns all flags, the summed counts, and each rank's numbers by name."""

import pytest
import torch
from support.gloo import run_on_ranks


def _exchange(rank: int) -> None:
    from acc_megatron.resilience.step_agreement import agree

    raised = {"spike"} if rank == 1 else set()
    counts = torch.tensor([[1, 2, 3], [4, 5, 6]]) * (rank + 1)
    # the order of the names differs by rank
    measured = {"wait": 10 + rank, "memory": 7 * rank} if rank else {"memory": 0, "wait": 10}
    agreed = agree(raised, counts, measured)
    assert agreed.raised == {"spike"}
    assert agreed.totals.tolist() == [[3, 6, 9], [12, 15, 18]]
    assert agreed.measured == {"wait": [10, 11], "memory": [0, 7]}
    nothing = agree(set(), torch.zeros(2, 0, dtype=torch.int64), {})
    assert nothing.raised == frozenset() and nothing.totals.shape == (2, 0) and nothing.measured == {}


@pytest.mark.distributed
def test_every_rank_learns_flags_sums_and_the_numbers_of_each_rank() -> None:
    run_on_ranks(_exchange, 2)
