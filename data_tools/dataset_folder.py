"""The dataset folder: what is in it, and opening it with every cheap check made.

manifest.json                     counts, settings, tokenizer hash, and size and SHA-256 of every file
samples.parquet                   a row a document
shards/00000/tokens.bin .idx      int32
shards/00000/loss_mask.bin .idx   uint8, same lengths; 1 = this token is a target (no shift)
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acc_megatron.data_tools.atomic import need_replaceable
from acc_megatron.data_tools.indexed import IndexedFile
from acc_megatron.errors import DataError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
QUARANTINE = "quarantine.jsonl"
SAMPLES = "samples.parquet"
FILE_NAME = re.compile(rf"{QUARANTINE}|{SAMPLES}|shards/\d{{5,9}}/(tokens|loss_mask)\.(bin|idx)", re.ASCII)
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
        ("pieces", pa.list_(PIECE)),  # of the context, in order, heading included; none for rows that do not say
        ("extra", pa.string()),  # JSON: provenance, settings and every field of the input we do not know
    ]
)


@dataclass(frozen=True)
class DatasetFolder:
    """An opened dataset folder: documents by number, over all shards."""

    path: Path
    manifest: dict[str, Any]
    samples: pa.Table
    shards: tuple[tuple[IndexedFile, IndexedFile], ...]
    shard_starts: np.ndarray

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

    def document(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """`ids` int32 `[tokens]` and `mask` uint8 `[tokens]` of one document, read-only views."""
        if not 0 <= number < len(self):
            raise DataError(f"{self.path}: no document {number}; it has {len(self)}, counted from 0")
        shard = int(np.searchsorted(self.shard_starts, number, side="right")) - 1
        tokens, mask = self.shards[shard]
        local = number - int(self.shard_starts[shard])
        return tokens[local], mask[local]

    def check_unchanged(self, documents: list[int]) -> None:
        """Raise DataError when a shard that holds one of these documents was changed since it was opened."""
        for shard in np.unique(np.searchsorted(self.shard_starts, np.asarray(documents, np.int64), side="right") - 1):
            for file in self.shards[shard]:
                file.check_unchanged()

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every document, `[documents]` int64."""
        return self.samples["tokens"].to_numpy()

    @property
    def fingerprint(self) -> str:
        """A hash that changes with any byte of any file or any setting."""
        return self.manifest["fingerprint"]


def fingerprint(manifest: dict[str, Any]) -> str:
    """SHA-256 of the manifest without its own fingerprint; through the files' hashes it covers every byte."""
    body = {key: value for key, value in manifest.items() if key != "fingerprint"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a dataset folder; DataError when there is none, or it is damaged or of another version."""
    file = path / MANIFEST
    if not file.is_file():
        raise DataError(f"no dataset at {path}: it has no {MANIFEST} (conversion writes it last)")
    try:
        manifest = json.loads(file.read_bytes())
        version, other = manifest["format_version"], manifest.get("format")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file} is damaged: {error!r}") from None
    if other is not None:
        raise DataError(f"{path} holds {str(other)[:40]}, not a dataset: 'convert' makes one of them")
    if version != FORMAT_VERSION:
        raise DataError(f"{file} has format version {version}; this code reads version {FORMAT_VERSION}: convert again")
    if manifest.get("fingerprint") != fingerprint(manifest):
        raise DataError(f"{file} was changed: its fingerprint is not that of its contents")
    _check_shape(file, manifest)
    return manifest


def _check_shape(file: Path, manifest: dict[str, Any]) -> None:
    """DataError for a manifest, hash and all, that `convert` did not write: of other types, or with other files."""
    kinds = {"files": dict, "shards": int, "dropped": dict, "dropped_tokens": dict, "tokenizer": dict, "settings": dict}
    wrong = [name for name, kind in kinds.items() if type(manifest.get(name)) is not kind]
    if not wrong:
        counts = [*manifest["dropped"].values(), *manifest["dropped_tokens"].values()]
        counts += [manifest["tokenizer"].get("vocab_size"), manifest["tokenizer"].get("pad_id")]
        wrong = [] if all(type(count) is int for count in counts) else ["a count"]
    if wrong:
        raise DataError(f"{file} is damaged: {', '.join(wrong)} missing or of another type")
    for name, entry in manifest["files"].items():
        if not FILE_NAME.fullmatch(name):
            raise DataError(f"{file} lists {name[:80]!r}, which leaves the folder or is no file of a dataset")
        if not isinstance(entry, dict) or type(entry.get("bytes")) is not int or type(entry.get("sha256")) is not str:
            raise DataError(f"{file} is damaged: {name} has no size and hash")


def is_linked(path: Path, name: str) -> bool:
    """Whether a file of the dataset folder, or a folder in it that holds the file, is a symbolic link."""
    return any((path / part).is_symlink() for part in (Path(name), *Path(name).parents[:-1]))


def need_free_or_dataset(path: Path) -> None:
    """DataError unless `path` is free, empty, or a dataset folder and nothing else, which a new one may replace."""
    own = {MANIFEST, QUARANTINE, SAMPLES, "shards"}
    need_replaceable(path, "a dataset folder", lambda manifest: "shards" in manifest, own)


def open_dataset(path: Path) -> DatasetFolder:
    """Open a dataset folder, checking versions, sizes and lengths (not hashes: `verify` does that).

    Raises DataError naming the file that is missing, cut or of another version.
    """
    manifest = read_manifest(path)
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise DataError(f"{file} is missing")
        if is_linked(path, name):
            raise DataError(f"{file} is a link or behind one: put the file itself there (cp -L)")
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
        raise DataError(f"{path}: the shards' document lengths are not those of {SAMPLES}")
    starts = np.cumsum([0, *(len(tokens) for tokens, _ in shards)])
    return DatasetFolder(path, manifest, samples, tuple(shards), starts)
