"""Open untrusted files (plain, gzip, Zstandard or standard input) in bounded memory and with a bounded ratio.

Streams return uncompressed bytes, and offsets count those. In a compressed file, seeking forward decompresses up to
there, and seeking back starts again. Limits: the output may exceed RATIO times the compressed bytes read so far by at
most SLACK_BYTES, and one file may contain at most MAX_BYTES.
"""

import atexit
import io
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

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
    """A compressed file is damaged or exceeds a limit; `reason` is a short slug, `detail` has the numbers."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class _Bounded(io.RawIOBase):
    """Decompresses a file within the limits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start()

    def _start(self) -> None:
        import pyarrow as pa  # only for compressed files: light verbs import this module

        self._errors = (OSError, pa.ArrowException)
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
        except self._errors as error:
            raise BadStream("damaged_compression", f"after {self._num_bytes} uncompressed bytes: {error}") from None
        self._num_bytes += len(block)
        num_compressed = self._raw.tell()
        if self._num_bytes > SLACK_BYTES + RATIO * num_compressed:
            detail = f"{num_compressed} bytes decompress to {self._num_bytes}, a ratio of more than {RATIO}"
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
    """The uncompressed bytes of a file, by its suffix. Raises DataError if it cannot open; reads raise BadStream."""
    path = located(path)
    try:
        if path.suffix in COMPRESSIONS:
            return io.BufferedReader(_Bounded(path), _BLOCK_BYTES)
        return path.open("rb", buffering=_BLOCK_BYTES)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def located(path: Path) -> Path:
    """The file to read for a path: `-` is standard input, which is copied once to a temporary file."""
    return _spooled_standard_input() if path == STANDARD_INPUT else path


@cache
def _spooled_standard_input() -> Path:
    """Standard input as a temporary file, removed at exit; its first bytes determine the format."""
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
                raise DataError(
                    f"standard input is longer than {MAX_STANDARD_INPUT_BYTES} bytes: write it to a file, and give that"
                )
            file.write(block)
            block = source.read(_BLOCK_BYTES)
    return path
