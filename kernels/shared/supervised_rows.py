"""Selects the supervised rows of a sequence, so that only these are gathered, multiplied and stored."""

import contextlib
from typing import NamedTuple, NoReturn

import torch
import torch.distributed as dist

from acc_megatron.errors import ArgumentError


def num_shards(group: dist.ProcessGroup | None) -> int:
    """Number of vocabulary shards: the size of the group, or 1 without a group."""
    return dist.get_world_size(group) if group is not None else 1


def shard_rank(group: dist.ProcessGroup | None) -> int:
    """Index of the vocabulary shard on this rank."""
    return dist.get_rank(group) if group is not None else 0


class SupervisedRows(NamedTuple):
    """The supervised rows of this rank and how many rows each rank of `group` has.

    `own` `[rows]` int64 holds the row indices of this rank, ascending. `counts` has one entry per rank, in rank order;
    without sequence parallelism all ranks have the same rows and `counts` has one entry.
    """

    own: torch.Tensor
    counts: tuple[int, ...]
    group: dist.ProcessGroup | None

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Gather the values of own rows `[own, ...]` from all ranks: `[sum of counts, ...]`, in rank order.

        Implemented as a sum of zero-filled buffers, which is exact because only zeros are added. A padded all-gather
        would need ranks x the largest count: often one rank has all supervised rows, those at the end of a sequence.
        """
        if len(self.counts) == 1:
            return values
        gathered = values.new_zeros((sum(self.counts), *values.shape[1:]))
        self.take_own(gathered).copy_(values)
        dist.all_reduce(gathered, group=self.group)
        return gathered

    def take_own(self, values: torch.Tensor) -> torch.Tensor:
        """The part of `[sum of counts, ...]` that belongs to this rank, as a view."""
        rank = shard_rank(self.group) if len(self.counts) > 1 else 0
        return values.narrow(0, sum(self.counts[:rank]), self.counts[rank])


def find_supervised_rows(
    token_weights: torch.Tensor,
    group: dist.ProcessGroup | None,
    sequence_parallel: bool,
) -> SupervisedRows:
    """Find the rows of token_weights `[tokens]` that are not zero.

    Under sequence parallelism one all-reduce exchanges the counts. A rank with an invalid argument must take part in it
    by calling `raise_on_every_rank` instead.
    """
    own = token_weights.nonzero().squeeze(1)
    if not sequence_parallel or num_shards(group) == 1:
        return SupervisedRows(own, (len(own),), group)
    return SupervisedRows(own, _exchange_counts(len(own), group, token_weights.device), group)


def raise_on_every_rank(
    error: ArgumentError, group: dist.ProcessGroup | None, sequence_parallel: bool, device: torch.device
) -> NoReturn:
    """Raise `error`; under sequence parallelism the other ranks, which exchange counts, raise an ArgumentError too."""
    if sequence_parallel and num_shards(group) > 1:
        with contextlib.suppress(ArgumentError):
            _exchange_counts(-1, group, device)
    raise error


def _exchange_counts(own: int, group: dist.ProcessGroup | None, device: torch.device) -> tuple[int, ...]:
    """The counts of all ranks. A rank with an invalid argument sends -1, and every rank raises an ArgumentError."""
    counts = torch.zeros(num_shards(group), dtype=torch.int64, device=device)
    counts[shard_rank(group)] = own
    dist.all_reduce(counts, group=group)
    counts_by_rank = tuple(counts.tolist())
    if -1 in counts_by_rank:
        rank = counts_by_rank.index(-1)
        raise ArgumentError(f"rank {rank} of the group has an invalid argument; see the error message of that rank")
    return counts_by_rank


def local_columns(targets: torch.Tensor, shard_vocab: int, group: dist.ProcessGroup | None) -> torch.Tensor:
    """Convert targets `[rows]` of the full vocabulary to columns of this shard; -1 if another shard has the target."""
    columns = targets - shard_rank(group) * shard_vocab
    return torch.where((columns >= 0) & (columns < shard_vocab), columns, -1)
