"""From a dataset folder to the rows of a step: which documents, in which order, as which tensors.

    documents -> rows (packed once, whole documents) -> an order per epoch (seeded) -> global batches -> rows of a rank

The order depends on the dataset, the row length and the seed alone, never on the number of ranks.
"""

from dataclasses import dataclass

import numpy as np
import torch

from acc_megatron.config import DataConfig, ModelConfig
from acc_megatron.data.balance import like_with_like, row_cost_flops
from acc_megatron.data.context_shard import shard
from acc_megatron.data.packing import pack, round_up
from acc_megatron.data_tools.dataset_folder import DatasetFolder
from acc_megatron.errors import DataError
from acc_megatron.layout import Layout

EMPTY_ROW = -1


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One row `[tokens]` of whole documents; `labels[i]` is the token after `tokens[i]` of the same document.

    tokens, labels, positions int64; loss_mask float32, 1 where the label is supervised; cu_seqlens are the
    document bounds from 0 to the row length, padding at the end counting as one more document.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    loss_mask: torch.Tensor
    positions: torch.Tensor
    cu_seqlens: tuple[int, ...]

    def local(self, layout: Layout, context_rank: int) -> "PackedRow":
        """The zig-zag slice of one context-parallel rank; cu_seqlens stay those of the whole row."""
        tokens, labels, loss_mask, positions = (
            shard(tensor, self.cu_seqlens, layout.context, context_rank)
            for tensor in (self.tokens, self.labels, self.loss_mask, self.positions)
        )
        return PackedRow(tokens, labels, loss_mask, positions, self.cu_seqlens)


class Loader:
    """The rows of a dataset for one rank.

    Documents are padded here, to a multiple that every context-parallel size up to its half divides: a dataset
    is never rebuilt for another layout, and rows are the same in all of them. Raises DataError when a document
    does not fit a row, or the model has fewer token embeddings than the dataset's tokenizer has tokens.
    """

    def __init__(self, dataset: DatasetFolder, data: DataConfig, model: ModelConfig, layout: Layout, seed: int) -> None:
        self.dataset = dataset
        self.seq_length_tokens = data.seq_length_tokens
        self.layout = layout
        self.seed = seed
        tokenizer = dataset.manifest["tokenizer"]
        if tokenizer["vocab_size"] > model.vocab_size:
            raise DataError(
                f"{dataset.path} was converted with tokenizer {tokenizer['name']} of {tokenizer['vocab_size']:,} "
                f"tokens and model.vocab_size is {model.vocab_size:,}: convert with the model's own tokenizer"
            )
        self.pad_id = int(tokenizer["pad_id"])
        self.multiple_tokens = data.document_multiple_tokens
        # the first token of a document is control text, never a target, so the shift loses none
        self._supervised = dataset.samples["supervised_tokens"].to_numpy()
        padded = [round_up(int(length), self.multiple_tokens) for length in dataset.lengths]
        self.rows = pack(padded, self.seq_length_tokens)
        self._costs = [row_cost_flops([padded[document] for document in row], model) for row in self.rows]

    def num_steps(self, epochs: int, global_batch_rows: int) -> int:
        """Steps of a run; a last batch that is not full is filled with empty rows, never dropped."""
        return -(-epochs * len(self.rows) // global_batch_rows)

    def batch(self, step: int, global_batch_rows: int, epochs: int) -> list[int]:
        """Row numbers of global batch `step` (from 0), costliest first; EMPTY_ROW fills up behind the last epoch."""
        first = step * global_batch_rows
        places = range(first, first + global_batch_rows)
        rows = [self._row_at(place) if place < epochs * len(self.rows) else EMPTY_ROW for place in places]
        return like_with_like(rows, [0.0 if row == EMPTY_ROW else self._costs[row] for row in rows])

    def _row_at(self, place: int) -> int:
        epoch, within = divmod(place, len(self.rows))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.rows))
        return int(order[within])

    def num_supervised_tokens(self, batch: list[int]) -> int:
        """Supervised tokens of a global batch over all ranks, known without reading a token."""
        return int(self._supervised[np.asarray(self.documents(batch), np.int64)].sum())

    def documents(self, batch: list[int]) -> list[int]:
        """The documents in some rows."""
        return [document for number in batch if number != EMPTY_ROW for document in self.rows[number]]

    def row(self, number: int) -> PackedRow:
        """Row `number` as tensors; EMPTY_ROW is padding alone."""
        length, multiple = self.seq_length_tokens, self.multiple_tokens
        tokens = np.full(length, self.pad_id, np.int64)
        labels = np.full(length, self.pad_id, np.int64)
        loss_mask = np.zeros(length, np.float32)
        positions = np.zeros(length, np.int64)
        bounds = [0]
        for document in self.rows[number] if number != EMPTY_ROW else ():
            ids, mask = self.dataset.document(document)
            start, end = bounds[-1], bounds[-1] + len(ids)
            tokens[start:end] = ids
            labels[start : end - 1] = ids[1:]  # the one place that shifts; a document's last token predicts nothing
            loss_mask[start : end - 1] = mask[1:]
            padded_end = start + round_up(len(ids), multiple)
            positions[start:padded_end] = np.arange(padded_end - start)
            bounds.append(padded_end)
        if bounds[-1] < length:
            positions[bounds[-1] :] = np.arange(length - bounds[-1])
            bounds.append(length)
        return PackedRow(
            torch.from_numpy(tokens),
            torch.from_numpy(labels),
            torch.from_numpy(loss_mask),
            torch.from_numpy(positions),
            tuple(bounds),
        )

    def rank_rows(self, batch: list[int], data_rank: int, context_rank: int) -> list[PackedRow]:
        """The slices one rank works on: its share of the global batch, a row a microbatch.

        Raises DataError when a file that is read is no longer the one that was opened.
        """
        mine = batch[data_rank :: self.layout.data]
        documents = self.documents(mine)
        self.dataset.check_unchanged(documents)
        rows = [self.row(number).local(self.layout, context_rank) for number in mine]
        self.dataset.check_unchanged(documents)
        return rows
