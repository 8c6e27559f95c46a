"""Supervised rows: found first, so that nothing else of a sequence is gathered, multiplied or kept."""

from typing import NamedTuple

import torch
import torch.distributed as dist

from acc_megatron.errors import ArgumentError


def shards(group: dist.ProcessGroup | None) -> int:
    """Number of vocabulary shards: the size of the group, 1 without."""
    return dist.get_world_size(group) if group is not None else 1


def shard_rank(group: dist.ProcessGroup | None) -> int:
    """Which shard this process holds."""
    return dist.get_rank(group) if group is not None else 0


class SupervisedRows(NamedTuple):
    """`own` `[rows]` int64: this rank's supervised rows, ascending; `counts`: how many each rank brings, in rank order.

    Without sequence parallelism every rank has the same rows and `counts` has one entry.
    """

    own: torch.Tensor
    counts: tuple[int, ...]
    group: dist.ProcessGroup | None

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Values of own rows `[own, ...]` -> of all ranks' rows `[sum of counts, ...]`, in rank order.

        A sum of zero-filled buffers, exact as only zeros are added: a padded all-gather would hold ranks x the largest
        count, and here one rank often has all supervised rows, the end of a sequence.
        """
        if len(self.counts) == 1:
            return values
        everyone = values.new_zeros((sum(self.counts), *values.shape[1:]))
        self.take_own(everyone).copy_(values)
        dist.all_reduce(everyone, group=self.group)
        return everyone

    def take_own(self, values: torch.Tensor) -> torch.Tensor:
        """The part of `[sum of counts, ...]` that belongs to this rank, a view."""
        place = shard_rank(self.group) if len(self.counts) > 1 else 0
        return values.narrow(0, sum(self.counts[:place]), self.counts[place])


def supervised_rows(
    token_weights: torch.Tensor,
    group: dist.ProcessGroup | None,
    sequence_parallel: bool,
    problem: ArgumentError | None = None,
) -> SupervisedRows:
    """Rows of token_weights `[tokens]` that are not zero. Raises `problem`, on every rank of a group that shares it.

    Under sequence parallelism one all-reduce carries the counts, and -1 from a rank with a problem.
    """
    if not sequence_parallel or shards(group) == 1:
        if problem:
            raise problem
        own = token_weights.nonzero().squeeze(1)
        return SupervisedRows(own, (len(own),), group)
    own = token_weights.nonzero().squeeze(1)
    counts = torch.zeros(shards(group), dtype=torch.int64, device=token_weights.device)
    counts[shard_rank(group)] = -1 if problem else len(own)
    dist.all_reduce(counts, group=group)
    numbers = tuple(counts.tolist())
    if problem:
        raise problem
    if -1 in numbers:
        raise ArgumentError(f"rank {numbers.index(-1)} of the group has a bad argument; its own message says which")
    return SupervisedRows(own, numbers, group)


def local_columns(targets: torch.Tensor, shard_vocab: int, group: dist.ProcessGroup | None) -> torch.Tensor:
    """Targets `[rows]` over the whole vocabulary -> columns of this shard, -1 where another shard owns the target."""
    columns = targets - shard_rank(group) * shard_vocab
    return torch.where((columns >= 0) & (columns < shard_vocab), columns, -1)
