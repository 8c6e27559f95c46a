"""Megatron's indexed binary, written and read by us: a `.bin` of items and an `.idx` that says where.

Layout of `.idx` (little endian), as megatron.core.datasets.indexed_dataset reads it: magic, uint64 version,
uint8 dtype code, uint64 number of sequences, uint64 number of document bounds, int32 lengths, int64 byte
offsets, int64 document bounds. Here every sequence is one document.
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from acc_megatron.errors import DataError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPE_CODES: dict[int, np.dtype] = {1: np.dtype(np.uint8), 4: np.dtype(np.int32)}
HEADER = struct.Struct("<9sQBQQ")


def write_indexed(prefix: Path, documents: Iterable[np.ndarray], dtype: type[np.generic]) -> None:
    """Write `prefix.bin` and `prefix.idx` from 1-D arrays, one document each.

    Call it inside an unpublished folder (see atomic.py). Values must already be of `dtype`.
    """
    kind = np.dtype(dtype)
    lengths = []
    with prefix.with_suffix(".bin").open("wb") as file:
        for document in documents:
            assert document.dtype == kind, f"{document.dtype} is not {kind}"
            file.write(np.ascontiguousarray(document).data)
            lengths.append(len(document))
    code = next(code for code, known in DTYPE_CODES.items() if known == kind)
    sizes = np.asarray(lengths, np.int32)
    offsets = np.zeros(len(lengths), np.int64)
    np.cumsum(sizes[:-1].astype(np.int64) * kind.itemsize, out=offsets[1:])
    bounds = np.arange(len(lengths) + 1, dtype=np.int64)
    with prefix.with_suffix(".idx").open("wb") as file:
        file.write(HEADER.pack(MAGIC, VERSION, code, len(lengths), len(bounds)))
        for part in (sizes, offsets, bounds):
            file.write(part.data)


class IndexedFile:
    """Random access to the documents of one `.bin/.idx` pair through a memory map.

    Raises DataError when the two files do not fit each other to the byte.
    """

    def __init__(self, prefix: Path) -> None:
        index_path, data_path = prefix.with_suffix(".idx"), prefix.with_suffix(".bin")
        self.dtype, self.lengths, self._starts = _read_index(index_path)
        if not data_path.is_file():
            raise DataError(f"{data_path} is missing")
        expected = int(self.lengths.sum(dtype=np.int64)) * self.dtype.itemsize
        self._path, self._opened_as = data_path, _size_and_time(data_path)
        size = self._opened_as[0]
        if size != expected:
            raise DataError(f"{data_path} has {size} bytes, its index needs {expected}: it was cut or appended to")
        self._items = np.memmap(data_path, self.dtype, mode="r") if size else np.empty(0, self.dtype)

    def __len__(self) -> int:
        return len(self.lengths)

    def check_unchanged(self) -> None:
        """Raise DataError when the data was written to, cut or replaced since it was opened.

        Ask before a read and after it: reading a map behind the end of a cut file kills the process.
        """
        try:
            now = _size_and_time(self._path)
        except OSError as error:
            raise DataError(f"{self._path} was removed while it was in use: {os.strerror(error.errno or 0)}") from None
        if now != self._opened_as:
            raise DataError(
                f"{self._path} was changed while it was in use: it had {self._opened_as[0]} bytes, last written at "
                f"{self._opened_as[1] / 1e9:.6f}, and has {now[0]}, written at {now[1] / 1e9:.6f}; restore the "
                "dataset, or check it with `acc-megatron verify`, and start again"
            )

    def __getitem__(self, number: int) -> np.ndarray:
        """Document `number` as a read-only view `[tokens]`."""
        start = int(self._starts[number])
        return self._items[start : start + int(self.lengths[number])]


def _size_and_time(path: Path) -> tuple[int, int]:
    """Bytes, and nanoseconds of the last write."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _read_index(path: Path) -> tuple[np.dtype, np.ndarray, np.ndarray]:
    """Dtype, lengths `[documents]` int32 and first items `[documents]` int64 of an `.idx` file."""
    if not path.is_file():
        raise DataError(f"{path} is missing")
    data = path.read_bytes()
    if len(data) < HEADER.size:
        raise DataError(f"{path} has {len(data)} bytes, a header alone needs {HEADER.size}")
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
