"""Megatron's indexed binary format: a `.bin` file of items and an `.idx` file with the position of each document.

Layout of `.idx` (little endian), as megatron.core.datasets.indexed_dataset reads it: magic, uint64 version,
uint8 dtype code, uint64 number of sequences, uint64 number of document bounds, int32 lengths, int64 byte
offsets, int64 document bounds. Here every sequence is one document.
"""

import hashlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from acc_megatron.common.atomic_files import size_and_time
from acc_megatron.data_tools.convert.manifest import FileEntry
from acc_megatron.errors import DataError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPE_CODES: dict[int, np.dtype] = {1: np.dtype(np.uint8), 4: np.dtype(np.int32)}
HEADER = struct.Struct("<9sQBQQ")


class IndexedWriter:
    """Writes `prefix.bin` as documents arrive and `prefix.idx` when closed; `files` then has their sizes and SHA-256.

    Use it inside an unpublished folder (see atomic_files.py). Values must have the given dtype and be below `limit`,
    for example the vocabulary size; others raise DataError.
    """

    def __init__(self, prefix: Path, dtype: type[np.generic], *, limit: int | None = None) -> None:
        self._prefix, self._dtype, self._limit = prefix, np.dtype(dtype), limit
        self._lengths: list[int] = []
        self._file = prefix.with_suffix(".bin").open("wb")
        self._digest = hashlib.sha256()
        self.files: dict[str, FileEntry] = {}

    def __enter__(self) -> "IndexedWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()
        if kind is None:
            self._describe(".bin", self._digest, int(sum(self._lengths)) * self._dtype.itemsize)
            self._write_index()

    def add(self, document: np.ndarray) -> None:
        """Append one document, a 1-D array."""
        assert document.dtype == self._dtype, f"{document.dtype} is not {self._dtype}"
        if self._limit is not None and len(document) and not 0 <= document.min() <= document.max() < self._limit:
            raise DataError(
                f"{self._prefix.name}: values {document.min()} to {document.max()} in document {len(self._lengths)}; "
                f"they must be at least 0 and below {self._limit}"
            )
        data = np.ascontiguousarray(document).data
        self._file.write(data)
        self._digest.update(data)
        self._lengths.append(len(document))

    def _write_index(self) -> None:
        code = next(code for code, known in DTYPE_CODES.items() if known == self._dtype)
        sizes = np.asarray(self._lengths, np.int32)
        offsets = np.zeros(len(sizes), np.int64)
        np.cumsum(sizes[:-1].astype(np.int64) * self._dtype.itemsize, out=offsets[1:])
        bounds = np.arange(len(sizes) + 1, dtype=np.int64)
        header = HEADER.pack(MAGIC, VERSION, code, len(sizes), len(bounds))
        data = b"".join([header, sizes.tobytes(), offsets.tobytes(), bounds.tobytes()])
        self._prefix.with_suffix(".idx").write_bytes(data)
        self._describe(".idx", hashlib.sha256(data), len(data))

    def _describe(self, suffix: str, digest: Any, num_bytes: int) -> None:
        self.files[self._prefix.with_suffix(suffix).name] = {"bytes": num_bytes, "sha256": digest.hexdigest()}


def write_indexed(prefix: Path, documents: Iterable[np.ndarray], dtype: type[np.generic]) -> None:
    """Write `prefix.bin` and `prefix.idx` with one document per 1-D array; see IndexedWriter."""
    with IndexedWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add(document)


class IndexedFile:
    """Random access to the documents of one `.bin/.idx` pair through a memory map.

    Raises DataError unless the sizes of the two files agree exactly.
    """

    def __init__(self, prefix: Path) -> None:
        index_path, data_path = prefix.with_suffix(".idx"), prefix.with_suffix(".bin")
        self.dtype, self.lengths, self._starts = _read_index(index_path)
        if not data_path.is_file():
            raise DataError(f"{data_path} is missing")
        expected = int(self.lengths.sum(dtype=np.int64)) * self.dtype.itemsize
        self._path, self._opened_as = data_path, size_and_time(data_path)
        size = self._opened_as[0]
        if size != expected:
            raise DataError(
                f"{data_path} has {size} bytes, its index needs {expected}: it was truncated or appended to"
            )
        self._items = np.memmap(data_path, self.dtype, mode="r") if size else np.empty(0, self.dtype)

    def __len__(self) -> int:
        return len(self.lengths)

    def check_unchanged(self) -> None:
        """Raise DataError when the data was written to, truncated or replaced since it was opened.

        Call it before and after a read: reading a memory map past the end of a truncated file kills the process.
        """
        try:
            now = size_and_time(self._path)
        except OSError as error:
            raise DataError(f"{self._path} was removed while in use: {os.strerror(error.errno or 0)}") from None
        if now != self._opened_as:
            raise DataError(
                f"{self._path} was changed while in use: it had {self._opened_as[0]} bytes, last written at "
                f"{self._opened_as[1] / 1e9:.6f}, and has {now[0]}, written at {now[1] / 1e9:.6f}; restore the "
                "dataset, check it with 'acc-megatron verify', and start again"
            )

    def __getitem__(self, number: int) -> np.ndarray:
        """Document `number` as a read-only view `[tokens]`."""
        start = int(self._starts[number])
        return self._items[start : start + int(self.lengths[number])]


def _read_index(path: Path) -> tuple[np.dtype, np.ndarray, np.ndarray]:
    """Dtype, lengths `[documents]` int32 and first items `[documents]` int64 of an `.idx` file."""
    if not path.is_file():
        raise DataError(f"{path} is missing")
    data = path.read_bytes()
    if len(data) < HEADER.size:
        raise DataError(f"{path} has {len(data)} bytes, its header needs {HEADER.size}")
    magic, version, code, num_sequences, num_bounds = HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION or code not in DTYPE_CODES:
        raise DataError(
            f"{path} is not an index of version {VERSION}: magic {magic!r}, version {version}, dtype {code}"
        )
    expected = HEADER.size + 12 * num_sequences + 8 * num_bounds
    if len(data) != expected or num_bounds != num_sequences + 1:
        raise DataError(f"{path} has {len(data)} bytes, {num_sequences} documents need {expected}")
    lengths = np.frombuffer(data, np.int32, num_sequences, HEADER.size)
    offsets = np.frombuffer(data, np.int64, num_sequences, HEADER.size + 4 * num_sequences)
    bounds = np.frombuffer(data, np.int64, num_bounds, HEADER.size + 12 * num_sequences)
    starts = np.zeros(num_sequences, np.int64)
    np.cumsum(lengths[:-1], out=starts[1:], dtype=np.int64)
    dtype = DTYPE_CODES[code]
    if (lengths < 1).any() or (offsets != starts * dtype.itemsize).any() or (bounds != np.arange(num_bounds)).any():
        raise DataError(f"{path}: lengths, offsets and document bounds contradict each other")
    return dtype, lengths, starts
