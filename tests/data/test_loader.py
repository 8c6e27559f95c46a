"""Packed rows keep every supervised token, shift labels once within a document, and are the same in every layout."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support.make_inputs import TINY_MODEL

from acc_megatron.bench.random_dataset import write_dataset
from acc_megatron.config import DataConfig, ModelConfig
from acc_megatron.data.loader import EMPTY_ROW, Loader
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.errors import DataError
from acc_megatron.mesh.layout import Layout


def loader(dataset: Path, *, context: int = 1, data: int = 1, seq_length_tokens: int = 512, seed: int = 0) -> Loader:
    layout = Layout(world=context * data, tensor=1, context=context, pipeline=1, expert=1, expert_tensor=1)
    data = DataConfig(path="", seq_length_tokens=seq_length_tokens)
    return Loader(open_dataset(dataset), data, ModelConfig(**TINY_MODEL), layout, seed=seed)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents whose lengths and supervised tokens differ; two lengths are multiples of 64."""
    folder = tmp_path_factory.mktemp("uneven") / "dataset"
    return write_dataset(folder, [128, 64, 40, 230, 250, 100, 90], vocab_size=1000, supervised_share=0.3)


def test_a_model_with_fewer_embeddings_than_tokenizer_tokens_is_refused(
    dataset: Path,
) -> None:
    folder = open_dataset(dataset)
    num_tokens = folder.manifest["tokenizer"]["vocab_size"]
    data = DataConfig(path="", seq_length_tokens=512)
    layout = Layout(world=1, tensor=1, context=1, pipeline=1, expert=1, expert_tensor=1)
    Loader(folder, data, ModelConfig(**(TINY_MODEL | {"vocab_size": num_tokens})), layout, seed=0)
    with pytest.raises(DataError, match=f"of {num_tokens:,} tokens, but model.vocab_size is {num_tokens - 1:,}"):
        Loader(folder, data, ModelConfig(**(TINY_MODEL | {"vocab_size": num_tokens - 1})), layout, seed=0)


def test_rows_contain_every_supervised_token_of_the_dataset(dataset: Path) -> None:
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
            assert row.loss_mask[end - 1] == 0, "a document's last token has no target"
            assert row.positions[start] == 0


def test_document_bounds_are_multiples_of_the_document_multiple(dataset: Path) -> None:
    rows = loader(dataset)
    for number in range(len(rows.rows)):
        bounds = rows.row(number).cu_seqlens
        assert bounds[0] == 0 and bounds[-1] == 512
        assert all(bound % 64 == 0 for bound in bounds)


@pytest.mark.parametrize("context", [2, 4])
def test_context_slices_together_are_the_row(dataset: Path, context: int) -> None:
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


def test_each_epoch_has_each_row_once_and_empty_rows_fill_the_last_batch(dataset: Path) -> None:
    rows = loader(dataset)
    num_rows, epochs, batch_rows = len(rows.rows), 3, 2
    steps = rows.num_steps(epochs, batch_rows)
    places = [number for step in range(steps) for number in rows.batch(step, batch_rows, epochs)]
    for epoch in range(epochs):
        assert sorted(places[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))
    assert places[epochs * num_rows :] == [EMPTY_ROW] * (steps * batch_rows - epochs * num_rows)


def test_an_empty_row_has_no_supervised_token(dataset: Path) -> None:
    row = loader(dataset).row(EMPTY_ROW)
    assert row.loss_mask.sum() == 0 and row.cu_seqlens == (0, 512)


def test_padding_is_cut_into_short_documents(dataset: Path) -> None:
    rows = loader(dataset, seq_length_tokens=2560)
    assert rows.row(EMPTY_ROW).cu_seqlens == (0, 1024, 2048, 2560)
    documents = rows.rows[-1]
    end = rows.row(len(rows.rows) - 1).cu_seqlens[len(documents)]
    assert rows.row(len(rows.rows) - 1).cu_seqlens[len(documents) + 1] == min(end + 1024, 2560)
    positions = rows.row(EMPTY_ROW).positions
    assert positions[1023] == 1023 and positions[1024] == 0 and positions[-1] == 511


def test_a_document_longer_than_a_row_is_refused(dataset: Path) -> None:
    with pytest.raises(DataError, match="but a row has 128"):
        loader(dataset, seq_length_tokens=128)


def order(rows: Loader, epoch: int) -> list[int]:
    """The row numbers of one epoch in the order of training."""
    num_rows = len(rows.rows)
    return [rows.batch(step, 1, epoch + 1)[0] for step in range(epoch * num_rows, (epoch + 1) * num_rows)]


def test_each_epoch_has_an_order_of_its_own(uneven: Path) -> None:
    rows = loader(uneven, seq_length_tokens=256)
    assert len({tuple(order(rows, epoch)) for epoch in range(8)}) > 4


def test_the_seed_changes_the_order_and_repeats_it(uneven: Path) -> None:
    orders = [order(loader(uneven, seq_length_tokens=256, seed=seed), 0) for seed in (*range(8), 0)]
    assert len({tuple(one) for one in orders}) > 4
    assert orders[0] == orders[-1]


def test_the_supervised_tokens_of_a_batch_are_those_of_its_rows(uneven: Path) -> None:
    rows = loader(uneven, seq_length_tokens=256)
    for step in range(rows.num_steps(2, 2)):
        batch = rows.batch(step, 2, 2)
        counted = sum(int(rows.row(number).loss_mask.sum()) for number in batch)
        assert rows.num_supervised_tokens(batch) == counted


def test_a_document_is_padded_to_the_next_multiple_and_not_beyond_it(uneven: Path) -> None:
    rows = loader(uneven, seq_length_tokens=256)
    (number,) = [number for number, documents in enumerate(rows.rows) if 1 in documents]
    lengths = rows.dataset.lengths[rows.rows[number]]
    expected = np.cumsum([0, *(-(-lengths // 64) * 64)]).tolist()
    assert 64 in lengths and len(expected) > 2
    bounds = rows.row(number).cu_seqlens
    assert list(bounds[: len(expected)]) == expected


def test_a_shard_that_changes_while_rows_are_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = loader(write_dataset(tmp_path / "dataset", [100, 90], 1000, supervised_share=0.3), seq_length_tokens=256)
    read = rows.row

    def read_and_change(number: int) -> object:
        row = read(number)
        os.utime(tmp_path / "dataset" / "shards" / "00000" / "tokens.bin", ns=(0, 0))
        return row

    monkeypatch.setattr(rows, "row", read_and_change)
    with pytest.raises(DataError, match=r"tokens\.bin was"):
        rows.rank_rows([0], 0, 0)
