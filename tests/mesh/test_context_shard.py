"""Zig-zag slices: every token is on one rank, causal work is even, and the order can be restored."""

import pytest
import torch

from acc_megatron.mesh.context_shard import gathered_order, local_positions, shard

BOUNDS = (0, 32, 48, 64, 192)


@pytest.mark.parametrize("context", [1, 2, 4, 8])
def test_every_token_is_on_exactly_one_rank(context: int) -> None:
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


def test_of_two_ranks_one_has_the_outer_chunks_of_each_document_and_the_other_the_inner_ones() -> None:
    assert local_positions((0, 8, 12), 2, 0).tolist() == [0, 1, 6, 7, 8, 11]
    assert local_positions((0, 8, 12), 2, 1).tolist() == [2, 3, 4, 5, 9, 10]


@pytest.mark.parametrize("context", [1, 2, 4])
def test_the_order_of_the_packed_row_is_restored_after_an_all_gather(context: int) -> None:
    row = torch.arange(192) * 10
    gathered = torch.cat([shard(row, BOUNDS, context, rank) for rank in range(context)])
    assert torch.equal(gathered[gathered_order(BOUNDS, context)], row)
