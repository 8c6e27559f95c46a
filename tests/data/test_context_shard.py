"""The zig-zag slices: every token on exactly one rank, even causal work, order restored."""

import pytest
import torch

from acc_megatron.data.context_shard import gathered_order, local_positions, shard

BOUNDS = (0, 32, 48, 64, 192)


@pytest.mark.parametrize("context", [1, 2, 4, 8])
def test_the_ranks_hold_every_token_exactly_once(context: int) -> None:
    held = torch.cat([local_positions(BOUNDS, context, rank) for rank in range(context)])
    assert held.sort().values.tolist() == list(range(192))


@pytest.mark.parametrize("context", [2, 4])
def test_causal_work_is_equal_on_every_rank(context: int) -> None:
    starts = torch.tensor(BOUNDS[:-1])
    work = []
    for rank in range(context):
        positions = local_positions(BOUNDS, context, rank)
        document = torch.bucketize(positions, torch.tensor(BOUNDS[1:]), right=True)
        work.append(int((positions - starts[document] + 1).sum()))
    assert len(set(work)) == 1


def test_two_ranks_hold_the_outer_and_the_inner_chunks_of_each_document() -> None:
    assert local_positions((0, 8, 12), 2, 0).tolist() == [0, 1, 6, 7, 8, 11]
    assert local_positions((0, 8, 12), 2, 1).tolist() == [2, 3, 4, 5, 9, 10]


@pytest.mark.parametrize("context", [1, 2, 4])
def test_an_all_gather_in_rank_order_is_put_back_into_row_order(context: int) -> None:
    row = torch.arange(192) * 10
    gathered = torch.cat([shard(row, BOUNDS, context, rank) for rank in range(context)])
    assert torch.equal(gathered[gathered_order(BOUNDS, context)], row)
