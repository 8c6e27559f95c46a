"""The rows of a microbatch that the last layer computes with `loss.last_layer_rows = "supervised"`."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams

from acc_megatron.config import Config
from acc_megatron.data.loader import PackedRow
from acc_megatron.data.packing import length_bucket
from acc_megatron.mesh.context_shard import gathered_order, local_positions
from acc_megatron.model.last_layer import Picked, SuffixRows
from acc_megatron.model.precision import PRECISIONS


def suffix_rows(config: Config, row: PackedRow, max_seqlen: int) -> SuffixRows:
    """Return the rows of a complete packed row as this rank sees them; `max_seqlen` bounds the length of its documents.

    Under FP8 each rank's part is a multiple of the recipe's alignment.
    """
    tensor, context = parallel_state.get_tensor_model_parallel_group(), parallel_state.get_context_parallel_group()
    recipe = PRECISIONS[config.train.precision].recipe
    parts, supervised = context.size() * tensor.size(), row.loss_mask.numpy() != 0
    lengths = suffix_lengths(supervised, row.cu_seqlens, parts * (recipe.alignment_dim if recipe else 1))
    ends = row.cu_seqlens[1:]
    index = np.concatenate([np.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)])
    share = index.reshape(context.size(), -1)[context.rank()]
    part = share.reshape(tensor.size(), -1)[tensor.rank()]

    def picked(tokens: np.ndarray) -> Picked:
        """`tokens` are ascending places in the row."""
        places = np.flatnonzero(np.isin(tokens, index, assume_unique=True))
        return Picked(_on_device(places), _on_device(np.searchsorted(index, tokens[places])))

    in_slice = local_positions(row.cu_seqlens, context.size(), context.rank()).numpy()
    queries, keys = shared_documents(share, row.cu_seqlens)
    order = gathered_order(row.cu_seqlens, context.size()).numpy()
    return SuffixRows(
        num_rows=len(index),
        in_slice=picked(in_slice),
        in_part=picked(in_slice.reshape(tensor.size(), -1)[tensor.rank()]),
        attention=PackedSeqParams(
            qkv_format="thd",
            cu_seqlens_q=_bounds(queries),
            cu_seqlens_kv=_bounds([len(places) for places in keys]),
            max_seqlen_q=length_bucket(max(queries), config.data.document_multiple_tokens, max_seqlen),
            max_seqlen_kv=max_seqlen,
            local_cp_size=1,  # the keys are complete: no context parallelism inside
        ),
        keys=_on_device(np.concatenate([order[k.start : k.stop] for k in keys])) if context.size() > 1 else None,
        labels=_on_device(row.labels.numpy()[share])[None],
        loss_mask=_on_device(row.loss_mask.numpy()[share])[None],
        not_supervised=_on_device(~supervised[part])[None],
    )


def _bounds(lengths: Sequence[int]) -> torch.Tensor:
    return _on_device(np.array([0, *accumulate(lengths)], np.int32))


def _on_device(array: np.ndarray) -> torch.Tensor:
    """Copy an array without waiting for what the GPU has to do before: a copy from other than pinned memory waits."""
    tensor = torch.from_numpy(array)
    tensor = tensor.pin_memory() if torch.cuda.is_available() else tensor
    return tensor.to(torch.cuda.current_device(), non_blocking=True)


def suffix_lengths(supervised: np.ndarray, cu_seqlens: Sequence[int], multiple: int) -> list[int]:
    """Return how many of its last tokens each document computes: from its first supervised token on, and at least one.

    `supervised` is `[row]` bool. The sum is a multiple of `multiple`, of which the row must be one too: the first
    documents with room fill it up with earlier tokens.
    """
    lengths = []
    for start, end in pairwise(cu_seqlens):
        own = supervised[start:end]
        lengths.append(end - start - int(own.argmax()) if own.any() else 1)
    missing = -sum(lengths) % multiple
    for number, (start, end) in enumerate(pairwise(cu_seqlens)):
        extra = min(missing, end - start - lengths[number])
        lengths[number] += extra
        missing -= extra
    return lengths


def shared_documents(share: np.ndarray, cu_seqlens: Sequence[int]) -> tuple[list[int], list[range]]:
    """Return, for each document with rows in a share, their number, and its places up to the last of them."""
    numbers = np.searchsorted(cu_seqlens, share, side="right") - 1
    documents, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    keys = [
        range(cu_seqlens[document], int(share[last]) + 1)
        for document, last in zip(documents, first + counts - 1, strict=True)
    ]
    return counts.tolist(), keys
