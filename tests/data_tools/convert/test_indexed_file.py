"""Megatron reads our indexed binaries, and a pair of files with inconsistent sizes is refused when it is opened."""

from pathlib import Path

import numpy as np
import pytest

from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.indexed_file import IndexedFile, IndexedWriter, write_indexed
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError

DOCUMENTS = [np.array(ids, np.int32) for ids in ([70_000, 151_645, 0], [1], [151_668] * 5)]


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    write_indexed(tmp_path / "tokens", DOCUMENTS, np.int32)
    return tmp_path / "tokens"


def test_documents_are_read_back_unchanged(pair: Path) -> None:
    opened = IndexedFile(pair)
    assert len(opened) == 3 and opened.dtype == np.int32 and opened.lengths.tolist() == [3, 1, 5]
    assert [opened[i].tolist() for i in range(3)] == [document.tolist() for document in DOCUMENTS]
    with pytest.raises(ValueError, match="read-only"):
        opened[0][0] = 1
    with pytest.raises(IndexError):
        opened[3]


def test_the_writer_refuses_ids_outside_the_vocabulary_or_dtype(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """D7: ids outside the vocabulary or the dtype are never stored; Qwen3's vocabulary needs int32."""
    for limit in (tokenizer.vocab_size, 151_936):
        with IndexedWriter(tmp_path / f"{limit}", np.int32, limit=limit) as writer:
            writer.add(np.array([0, limit - 1], np.int32))
            for wrong in (limit, -1, 2**31 - 1):
                with pytest.raises(DataError, match=rf"in document 1; they must be at least 0 and below {limit}"):
                    writer.add(np.array([5, wrong, 5], np.int32))
        assert IndexedFile(tmp_path / f"{limit}")[0].tolist() == [0, limit - 1]
    with pytest.raises(AssertionError, match="int64 is not int32"):
        write_indexed(tmp_path / "tokens", [np.array([1 << 40])], np.int32)


def test_a_pair_of_files_without_documents_is_valid(tmp_path: Path) -> None:
    write_indexed(tmp_path / "empty", [], np.uint8)
    assert len(IndexedFile(tmp_path / "empty")) == 0


@pytest.mark.slow
def test_megatrons_reader_returns_the_same_tokens_and_masks(dataset: Path) -> None:
    from acc_megatron.mesh import cpu_backend

    cpu_backend.install()
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    ours, number = open_dataset(dataset), 0
    for shard in sorted((dataset / "shards").iterdir()):
        tokens, masks = IndexedDataset(str(shard / "tokens")), IndexedDataset(str(shard / "loss_mask"))
        assert tokens.index.dtype == np.int32 and masks.index.dtype == np.uint8
        assert tokens.document_indices.tolist() == list(range(len(tokens) + 1))
        for ids, mask in zip(tokens, masks, strict=True):
            expected_ids, expected_mask = ours.document(number)
            assert np.array_equal(ids, expected_ids) and np.array_equal(mask, expected_mask)
            number += 1
    assert number == len(ours) == 64


def test_any_missing_or_extra_byte_is_refused_and_the_file_named(pair: Path) -> None:
    for path in (pair.with_suffix(".bin"), pair.with_suffix(".idx")):
        whole = path.read_bytes()
        for damaged in (*(whole[:size] for size in range(len(whole))), whole + b"\0"):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=f"{path} has {len(damaged)} bytes"):
                IndexedFile(pair)
        path.unlink()
        with pytest.raises(DataError, match=f"{path} is missing"):
            IndexedFile(pair)
        path.write_bytes(whole)
    assert len(IndexedFile(pair)) == 3


def test_an_inconsistent_index_is_refused(pair: Path) -> None:
    index = pair.with_suffix(".idx")
    whole = index.read_bytes()
    header, sizes, offsets, bounds = 34, 34, 34 + 3 * 4, 34 + 3 * 12
    changes = {
        "not an index of version 1": [(0, b"X"), (9, b"\x02"), (17, b"\x03")],
        "contradict each other": [(sizes, b"\x02"), (offsets + 8, b"\x0d"), (bounds + 8, b"\x02")],
        "documents need": [(18, b"\x04"), (25, b"\x7f"), (26, b"\x05")],
    }
    assert len(whole) == header + 3 * 12 + 4 * 8
    for message, places in changes.items():
        for at, byte in places:
            index.write_bytes(whole[:at] + byte + whole[at + 1 :])
            with pytest.raises(DataError, match=message):
                IndexedFile(pair)
