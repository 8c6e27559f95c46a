"""Opening untrusted files: plain, gzip, Zstandard or standard input, in bounded memory and against a bounded ratio.

What a stream gives is bytes as they stand uncompressed; offsets count those. Seeking forward reads on, seeking back
starts again, so a compressed file costs one pass for each reader. Limits: output may exceed RATIO times the
compressed bytes read so far by no more than SLACK_BYTES, and MAX_BYTES is the most that one file may give.
"""

import atexit
import io
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

import pyarrow as pa

from acc_megatron.errors import DataError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
STANDARD_INPUT = Path("-")
RATIO = 200
SLACK_BYTES = 16 << 20
MAX_BYTES = 256 << 30
MAX_STANDARD_INPUT_BYTES = 16 << 30
_BLOCK_BYTES = 1 << 20
_SUFFIX_OF_MAGIC = {b"\x1f\x8b": ".jsonl.gz", b"\x28\xb5\x2f\xfd": ".jsonl.zst", b"PAR1": ".parquet"}


class BadStream(Exception):
    """A compressed file that is damaged or beyond its limits; `reason` is a short slug, `detail` has the numbers."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class _Bounded(io.RawIOBase):
    """Decompressed bytes, counted against the compressed ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start()

    def _start(self) -> None:
        self._raw = self._path.open("rb")
        self._stream = pa.CompressedInputStream(self._raw, COMPRESSIONS[self._path.suffix])
        self._num_bytes = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._num_bytes

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Only from the start of the file."""
        assert whence == io.SEEK_SET
        if offset < self._num_bytes:
            self._close()
            self._start()
        while self._num_bytes < offset and self.read(min(_BLOCK_BYTES, offset - self._num_bytes)):
            pass
        return self._num_bytes

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            block = self._stream.read(len(buffer))
        except (OSError, pa.ArrowException) as error:
            raise BadStream("damaged_compression", f"after {self._num_bytes} bytes: {error}") from None
        self._num_bytes += len(block)
        num_compressed = self._raw.tell()
        if self._num_bytes > SLACK_BYTES + RATIO * num_compressed:
            detail = f"{num_compressed} bytes gave {self._num_bytes}, more than {RATIO} : 1"
            raise BadStream("compression_ratio", detail)
        if self._num_bytes > MAX_BYTES:
            raise BadStream("file_too_large", f"more than {MAX_BYTES} bytes uncompressed; split the file")
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._close()
        super().close()

    def _close(self) -> None:
        self._stream.close()
        self._raw.close()


def open_stream(path: Path) -> IO[bytes]:
    """The bytes of a file uncompressed, by its suffix; reads raise BadStream. DataError when it cannot be opened."""
    path = located(path)
    try:
        if path.suffix in COMPRESSIONS:
            return io.BufferedReader(_Bounded(path), _BLOCK_BYTES)
        return path.open("rb", buffering=_BLOCK_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def located(path: Path) -> Path:
    """Where the bytes of a path lie: `-` is standard input, which is copied to a temporary file once."""
    return _spooled_standard_input() if path == STANDARD_INPUT else path


@cache
def _spooled_standard_input() -> Path:
    """Standard input as a file that this process removes at its end; its first bytes say which format it is."""
    folder = tempfile.TemporaryDirectory(prefix="acc-megatron-")
    atexit.register(folder.cleanup)
    source = sys.stdin.buffer
    block = source.read(_BLOCK_BYTES)
    suffix = next((suffix for magic, suffix in _SUFFIX_OF_MAGIC.items() if block.startswith(magic)), ".jsonl")
    path = Path(folder.name) / f"stdin{suffix}"
    num_bytes = 0
    with path.open("wb") as file:
        while block:
            num_bytes += len(block)
            if num_bytes > MAX_STANDARD_INPUT_BYTES:
                raise DataError(f"standard input is longer than {MAX_STANDARD_INPUT_BYTES} bytes; give it as a file")
            file.write(block)
            block = source.read(_BLOCK_BYTES)
    return path
