"""The packed rows of each training step, from a dataset folder.

    documents -> packed rows (once) -> order of an epoch (seeded) -> global batches -> rows of a rank

The order depends only on the dataset, the row length and the seed, never on the number of ranks.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from acc_megatron.config import DataConfig, ModelConfig
from acc_megatron.data.balance import costliest_first, row_cost_flops
from acc_megatron.data.packing import pack, round_up
from acc_megatron.data_tools.convert.dataset_folder import DatasetFolder
from acc_megatron.errors import DataError
from acc_megatron.mesh.context_shard import shard
from acc_megatron.mesh.layout import Layout

EMPTY_ROW = -1
PADDING_TOKENS = 1024  # length of the documents into which padding is cut


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One row `[tokens]` of whole documents; `labels[i]` is the token after `tokens[i]` in the same document.

    tokens, labels and positions are int64; loss_mask is float32, 1 where the label is supervised; padding is bool, True
    after the end of a document. cu_seqlens are the document bounds from 0 to the row length; padding at the end of the
    row counts as short documents.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    loss_mask: torch.Tensor
    positions: torch.Tensor
    padding: torch.Tensor
    cu_seqlens: tuple[int, ...]
    complete: "PackedRow | None" = None  # of the slice of a context-parallel rank: the row

    def local(self, layout: Layout, context_rank: int) -> "PackedRow":
        """Return the zig-zag slice of one context-parallel rank, with the cu_seqlens of the full row."""
        sliced = self._map(lambda tensor: shard(tensor, self.cu_seqlens, layout.context, context_rank))
        return dataclasses.replace(sliced, complete=self)

    def pinned(self) -> "PackedRow":
        """Return the row in pinned host memory, which a GPU copies while it computes."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "PackedRow":
        tokens, labels, loss_mask, positions, padding = map(
            function, (self.tokens, self.labels, self.loss_mask, self.positions, self.padding)
        )
        return PackedRow(tokens, labels, loss_mask, positions, padding, self.cu_seqlens, self.complete)


class Loader:
    """The packed rows of a dataset, for one rank.

    The loader pads each document to `data.document_multiple_tokens`, a multiple of 2 x context for every usable
    context-parallel size. Rows are therefore the same in every layout, and one dataset serves all of them. Raises
    DataError when a document is longer than a row, or the tokenizer has more tokens than the model has embeddings.
    `documents` are the numbers of the documents to use; None: all.
    """

    def __init__(
        self,
        dataset: DatasetFolder,
        data: DataConfig,
        model: ModelConfig,
        layout: Layout,
        seed: int,
        documents: Sequence[int] | None = None,
    ) -> None:
        self.dataset = dataset
        self.seq_length_tokens = data.seq_length_tokens
        self.layout = layout
        self.seed = seed
        tokenizer = dataset.manifest["tokenizer"]
        if tokenizer["vocab_size"] > model.vocab_size:
            raise DataError(
                f"{dataset.path} was converted with tokenizer {tokenizer['name']} of {tokenizer['vocab_size']:,} "
                f"tokens, but model.vocab_size is {model.vocab_size:,}: run acc-megatron convert again with "
                "--tokenizer set to the model's own tokenizer"
            )
        self.pad_id = int(tokenizer["pad_id"])
        self.multiple_tokens = data.document_multiple_tokens
        # the first token of a document is a control token and never a target, so the shift loses no target
        self._supervised = dataset.samples["supervised_tokens"].to_numpy()
        padded = [round_up(int(length), self.multiple_tokens) for length in dataset.lengths]
        used = range(len(padded)) if documents is None else documents
        packed = pack([padded[number] for number in used], self.seq_length_tokens)
        self.rows = [[used[place] for place in row] for row in packed]
        self._costs = [row_cost_flops([padded[document] for document in row], model) for row in self.rows]

    def num_steps(self, epochs: int, global_batch_rows: int) -> int:
        """Return the steps of a run; a last batch that is not full counts, and is filled with empty rows."""
        return -(-epochs * len(self.rows) // global_batch_rows)

    def batch(self, step: int, global_batch_rows: int, epochs: int) -> list[int]:
        """Return the row numbers of global batch `step` (from 0), costliest first; EMPTY_ROW after the last epoch."""
        first = step * global_batch_rows
        places = range(first, first + global_batch_rows)
        rows = [self._row_at(place) if place < epochs * len(self.rows) else EMPTY_ROW for place in places]
        return costliest_first(rows, [0.0 if row == EMPTY_ROW else self._costs[row] for row in rows])

    def _row_at(self, place: int) -> int:
        epoch, within = divmod(place, len(self.rows))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.rows))
        return int(order[within])

    def num_supervised_tokens(self, batch: list[int]) -> int:
        """Return the supervised tokens of a global batch over all ranks, without reading the tokens."""
        return int(self._supervised[np.asarray(self.documents(batch), np.int64)].sum())

    def num_document_tokens(self, batch: list[int]) -> int:
        """Return the tokens of a global batch over all ranks without padding."""
        return int(self.dataset.lengths[np.asarray(self.documents(batch), np.int64)].sum())

    def documents(self, batch: list[int]) -> list[int]:
        """Return the numbers of the documents in the rows of a batch."""
        return [document for number in batch if number != EMPTY_ROW for document in self.rows[number]]

    def row(self, number: int) -> PackedRow:
        """Return row `number` as tensors; EMPTY_ROW consists of padding only."""
        length, multiple = self.seq_length_tokens, self.multiple_tokens
        tokens = np.full(length, self.pad_id, np.int64)
        labels = np.full(length, self.pad_id, np.int64)
        loss_mask = np.zeros(length, np.float32)
        positions = np.zeros(length, np.int64)
        padding = np.ones(length, np.bool_)
        bounds = [0]
        for document in self.rows[number] if number != EMPTY_ROW else ():
            ids, mask = self.dataset.document(document)
            start, end = bounds[-1], bounds[-1] + len(ids)
            tokens[start:end] = ids
            padding[start:end] = False
            labels[start : end - 1] = ids[1:]  # the only place that shifts; a document's last token has no target
            loss_mask[start : end - 1] = mask[1:]
            padded_end = start + round_up(len(ids), multiple)
            positions[start:padded_end] = np.arange(padded_end - start)
            bounds.append(padded_end)
        step = round_up(PADDING_TOKENS, multiple)  # short, because the cost of attention is quadratic
        while bounds[-1] < length:
            start, end = bounds[-1], min(bounds[-1] + step, length)
            positions[start:end] = np.arange(end - start)
            bounds.append(end)
        return PackedRow(
            torch.from_numpy(tokens),
            torch.from_numpy(labels),
            torch.from_numpy(loss_mask),
            torch.from_numpy(positions),
            torch.from_numpy(padding),
            tuple(bounds),
        )

    def rank_rows(self, batch: list[int], data_rank: int, context_rank: int) -> list[PackedRow]:
        """Return this rank's slices of its rows of the global batch, one row per microbatch.

        Raises DataError when a file of the dataset changed after the dataset was opened.
        """
        mine = batch[data_rank :: self.layout.data]
        documents = self.documents(mine)
        self.dataset.check_unchanged(documents)
        rows = [self.row(number).local(self.layout, context_rank) for number in mine]
        self.dataset.check_unchanged(documents)
        return rows
