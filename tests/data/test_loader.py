"""From dataset to rows: supervision conserved, shifted once, never across documents, the same for every layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from make_inputs import TINY_MODEL

from acc_megatron.config import DataConfig, ModelConfig
from acc_megatron.data.loader import EMPTY_ROW, Loader
from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.errors import DataError
from acc_megatron.layout import Layout


def loader(dataset: Path, *, context: int = 1, data: int = 1, seq_length_tokens: int = 512) -> Loader:
    layout = Layout(context * data, 1, context, 1, 1, 1)
    data = DataConfig(path="", seq_length_tokens=seq_length_tokens)
    return Loader(open_dataset(dataset), data, ModelConfig(**TINY_MODEL), layout, seed=0)


def test_a_model_with_fewer_embeddings_than_the_tokenizer_has_tokens_is_refused_before_it_is_built(
    dataset: Path,
) -> None:
    folder = open_dataset(dataset)
    num_tokens = folder.manifest["tokenizer"]["vocab_size"]
    data, layout = DataConfig(path="", seq_length_tokens=512), Layout(1, 1, 1, 1, 1, 1)
    Loader(folder, data, ModelConfig(**(TINY_MODEL | {"vocab_size": num_tokens})), layout, seed=0)
    with pytest.raises(DataError, match=f"of {num_tokens:,} tokens and model.vocab_size is {num_tokens - 1:,}"):
        Loader(folder, data, ModelConfig(**(TINY_MODEL | {"vocab_size": num_tokens - 1})), layout, seed=0)


def test_supervised_tokens_are_conserved_from_dataset_to_rows(dataset: Path) -> None:
    rows = loader(dataset)
    supervised = sum(int(rows.row(number).loss_mask.sum()) for number in range(len(rows.rows)))
    assert supervised == rows.dataset.manifest["supervised_tokens"]


def test_labels_are_the_next_token_of_the_same_document(dataset: Path) -> None:
    rows = loader(dataset)
    for number, documents in enumerate(rows.rows):
        row = rows.row(number)
        for document, start in zip(documents, row.cu_seqlens, strict=False):
            ids, mask = rows.dataset.document(document)
            end = start + len(ids)
            assert torch.equal(row.tokens[start:end], torch.from_numpy(ids.astype(np.int64)))
            assert torch.equal(row.labels[start : end - 1], row.tokens[start + 1 : end])
            assert torch.equal(row.loss_mask[start : end - 1], torch.from_numpy(mask[1:].astype(np.float32)))
            assert row.loss_mask[end - 1] == 0, "a document's last token predicts nothing"
            assert row.positions[start] == 0


def test_document_bounds_are_multiples_that_every_context_size_divides(dataset: Path) -> None:
    rows = loader(dataset)
    for number in range(len(rows.rows)):
        bounds = rows.row(number).cu_seqlens
        assert bounds[0] == 0 and bounds[-1] == 512
        assert all(bound % 64 == 0 for bound in bounds)


@pytest.mark.parametrize("context", [2, 4])
def test_context_slices_join_to_the_row(dataset: Path, context: int) -> None:
    rows = loader(dataset, context=context)
    whole = rows.row(0)
    slices = [whole.local(rows.layout, rank) for rank in range(context)]
    for name in ("tokens", "labels", "loss_mask", "positions"):
        joined = torch.cat([getattr(part, name) for part in slices])
        assert torch.equal(joined.sort().values, getattr(whole, name).sort().values)
    assert all(part.cu_seqlens == whole.cu_seqlens for part in slices)


def test_rows_and_order_are_the_same_for_every_layout(dataset: Path) -> None:
    one, other = loader(dataset), loader(dataset, context=4, data=2)
    assert one.rows == other.rows
    assert [one.batch(step, 2, 3) for step in range(5)] == [other.batch(step, 2, 3) for step in range(5)]
    batch = other.batch(1, 4, 3)
    assert sorted([*batch[0::2], *batch[1::2]]) == sorted(batch)


def test_each_epoch_holds_each_row_once_and_the_last_batch_is_filled_not_dropped(dataset: Path) -> None:
    rows = loader(dataset)
    num_rows, epochs, batch_rows = len(rows.rows), 3, 2
    steps = rows.num_steps(epochs, batch_rows)
    places = [number for step in range(steps) for number in rows.batch(step, batch_rows, epochs)]
    for epoch in range(epochs):
        assert sorted(places[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))
    assert places[epochs * num_rows :] == [EMPTY_ROW] * (steps * batch_rows - epochs * num_rows)


def test_an_empty_row_supervises_nothing(dataset: Path) -> None:
    row = loader(dataset).row(EMPTY_ROW)
    assert row.loss_mask.sum() == 0 and row.cu_seqlens == (0, 512)


def test_a_document_longer_than_a_row_is_refused(dataset: Path) -> None:
    with pytest.raises(DataError, match="a row holds 128"):
        loader(dataset, seq_length_tokens=128)
