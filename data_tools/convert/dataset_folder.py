"""The dataset folder: what it contains, and opening it with every check that does not read the documents.

manifest.json                     counts, settings, tokenizer hash, and size and SHA-256 of every file
samples.parquet                   one row per document
quarantine.jsonl                  one line per dropped row, with the reason
shards/00000/tokens.bin .idx      int32
shards/00000/loss_mask.bin .idx   uint8, same lengths; 1 = this token is a target (no shift)
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acc_megatron.common.output_folder import check_replaceable
from acc_megatron.data_tools.convert.indexed_file import IndexedFile
from acc_megatron.data_tools.convert.manifest import MANIFEST, QUARANTINE, SAMPLES, DatasetManifest, read_manifest
from acc_megatron.errors import DataError

PIECE = pa.struct([("kind", pa.string()), ("title", pa.string()), ("first_token", pa.int64()), ("tokens", pa.int64())])
SAMPLE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("agent", pa.string()),
        ("tokens", pa.int64()),
        ("supervised_tokens", pa.int64()),
        ("num_evidence", pa.int32()),
        ("num_distractors", pa.int32()),
        ("first_supervised_token", pa.int64()),
        ("sha256", pa.string()),  # of the document's int32 ids followed by its uint8 mask
        ("pieces", pa.list_(PIECE)),  # of the context in order, headings included; empty where the row has no pieces
        ("extra", pa.string()),  # JSON: provenance, settings and every field of the input that has no column
    ]
)


@dataclass(frozen=True)
class DatasetFolder:
    """An opened dataset folder: documents by number, over all shards."""

    path: Path
    manifest: DatasetManifest
    samples: pa.Table
    shards: tuple[tuple[IndexedFile, IndexedFile], ...]
    shard_starts: np.ndarray

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

    def document(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """`ids` int32 `[tokens]` and `mask` uint8 `[tokens]` of one document, as read-only views."""
        if not 0 <= number < len(self):
            raise DataError(f"{self.path} has no document {number}: documents are numbered 0 to {len(self) - 1}")
        shard = int(np.searchsorted(self.shard_starts, number, side="right")) - 1
        tokens, mask = self.shards[shard]
        local = number - int(self.shard_starts[shard])
        return tokens[local], mask[local]

    def check_unchanged(self, documents: list[int]) -> None:
        """Raise DataError when a shard that contains one of these documents has changed since it was opened."""
        for shard in np.unique(np.searchsorted(self.shard_starts, np.asarray(documents, np.int64), side="right") - 1):
            for file in self.shards[shard]:
                file.check_unchanged()

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every document, `[documents]` int64."""
        return self.samples["tokens"].to_numpy()

    @property
    def fingerprint(self) -> str:
        """A hash that changes with any byte of any file and with any setting."""
        return self.manifest["fingerprint"]


def is_linked(path: Path, name: str) -> bool:
    """Whether the file `name` of a dataset folder, or a folder between, is a symbolic link."""
    return any((path / part).is_symlink() for part in (Path(name), *Path(name).parents[:-1]))


def check_free_or_dataset(path: Path) -> None:
    """Raise DataError unless `path` is free, empty, or a dataset folder that contains nothing else."""
    own = {MANIFEST, QUARANTINE, SAMPLES, "shards"}
    check_replaceable(path, "a dataset folder", lambda manifest: "shards" in manifest, own)


def open_dataset(path: Path) -> DatasetFolder:
    """Open a dataset folder, checking versions, sizes and lengths (`verify` also checks the hashes).

    Raises DataError naming the file that is missing, truncated or of another version.
    """
    manifest = read_manifest(path)
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise DataError(f"{file} is missing")
        if is_linked(path, name):
            raise DataError(f"{file} is a symbolic link or inside a linked folder: copy the file itself (cp -L)")
        if file.stat().st_size != entry["bytes"]:
            raise DataError(f"{file} has {file.stat().st_size} bytes, the manifest says {entry['bytes']}")
    try:
        samples = pq.read_table(path / SAMPLES, schema=SAMPLE_SCHEMA, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path / SAMPLES} is damaged: {error}") from None
    shards = []
    for number in range(manifest["shards"]):
        folder = path / "shards" / f"{number:05d}"
        tokens, mask = IndexedFile(folder / "tokens"), IndexedFile(folder / "loss_mask")
        if not np.array_equal(tokens.lengths, mask.lengths):
            raise DataError(f"{folder}: tokens and loss_mask have different document lengths")
        shards.append((tokens, mask))
    lengths = [tokens.lengths for tokens, _ in shards]
    if not np.array_equal(np.concatenate([np.empty(0, np.int32), *lengths]), samples["tokens"].to_numpy()):
        raise DataError(f"{path}: the document lengths of the shards differ from those in {SAMPLES}")
    starts = np.cumsum([0, *(len(tokens) for tokens, _ in shards)])
    return DatasetFolder(path, manifest, samples, tuple(shards), starts)
