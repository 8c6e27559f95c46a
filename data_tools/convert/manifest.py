"""The manifest of a dataset folder: its contents, its fingerprint, and reading it with every check."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from acc_megatron.errors import DataError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
QUARANTINE = "quarantine.jsonl"
SAMPLES = "samples.parquet"
FILE_NAME = re.compile(rf"{QUARANTINE}|{SAMPLES}|shards/\d{{5,9}}/(tokens|loss_mask)\.(bin|idx)", re.ASCII)


class FileEntry(TypedDict):
    """Size and hash of a file."""

    bytes: int
    sha256: str


class InputEntry(FileEntry):
    """An input file; `weight` is present if it is not 1."""

    name: str
    weight: NotRequired[float]


class TokenizerEntry(TypedDict):
    """The tokenizer of a dataset; every id is below `vocab_size`."""

    name: str
    sha256: str
    vocab_size: int
    pad_id: int


class AgentCounts(TypedDict):
    """The documents of one agent kind."""

    documents: int
    tokens: int
    supervised_tokens: int


class RefusedRow(TypedDict):
    """One line of quarantine.jsonl; `stage` is `read`, `weight` or `render`, `tokens` is present for rendered rows."""

    file: str
    line: int
    byte_offset: int
    stage: str
    reason: str
    detail: str
    tokens: NotRequired[int]


class ConversionRecord(TypedDict):
    """What decides the bytes of a dataset, recorded in the work folder of an unfinished conversion."""

    code_version: str
    settings: dict[str, Any]
    tokenizer: TokenizerEntry
    inputs: list[InputEntry]
    shards: int


class DatasetManifest(TypedDict):
    """manifest.json. `dropped` counts rows by reason, `dropped_tokens` the tokens of those that were rendered.

    A row that is used several times because of the weight of its input counts as several documents.
    """

    format_version: int
    code_version: str
    tokenizer: TokenizerEntry
    settings: dict[str, Any]
    inputs: list[InputEntry]
    documents_in: int
    documents_out: int
    dropped: dict[str, int]
    tokens_in: int
    dropped_tokens: dict[str, int]
    tokens: int
    supervised_tokens: int
    agents: dict[str, AgentCounts]
    shards: int
    files: dict[str, FileEntry]
    fingerprint: str


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest without its own fingerprint; through the files' hashes it covers every byte."""
    body = {key: value for key, value in manifest.items() if key != "fingerprint"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> DatasetManifest:
    """The manifest of the dataset folder `path`. Raises DataError when it is missing, damaged or of another version."""
    file = path / MANIFEST
    if not file.is_file():
        raise DataError(f"no dataset in {path}: {MANIFEST} is missing ('acc-megatron convert' writes it last)")
    try:
        manifest = json.loads(file.read_bytes())
        version, other_format = manifest["format_version"], manifest.get("format")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file} is damaged: {error!r}") from None
    if other_format is not None:
        raise DataError(f"{path} contains {str(other_format)[:40]}, not a dataset: run 'acc-megatron convert' on it")
    if version != FORMAT_VERSION:
        raise DataError(f"{file} has format version {version}; this code reads version {FORMAT_VERSION}: convert again")
    if manifest.get("fingerprint") != fingerprint(manifest):
        raise DataError(f"{file} was changed: its fingerprint does not match its contents")
    _check_types(file, manifest)
    return cast(DatasetManifest, manifest)


def _check_types(file: Path, manifest: dict[str, Any]) -> None:
    """Raise DataError for a manifest that `convert` did not write, although its fingerprint is right."""
    kinds = {"files": dict, "shards": int, "dropped": dict, "dropped_tokens": dict, "tokenizer": dict, "settings": dict}
    wrong = [name for name, kind in kinds.items() if type(manifest.get(name)) is not kind]
    if not wrong:
        counts = [*manifest["dropped"].values(), *manifest["dropped_tokens"].values()]
        counts += [manifest["tokenizer"].get("vocab_size"), manifest["tokenizer"].get("pad_id")]
        wrong = [] if all(type(count) is int for count in counts) else ["a count"]
    if wrong:
        raise DataError(f"{file} is damaged: {', '.join(wrong)} missing or of the wrong type")
    for name, entry in manifest["files"].items():
        if not FILE_NAME.fullmatch(name):
            raise DataError(f"{file} lists {name[:80]!r}, which is outside the folder or not a file of a dataset")
        if not isinstance(entry, dict) or type(entry.get("bytes")) is not int or type(entry.get("sha256")) is not str:
            raise DataError(f"{file} is damaged: {name} has no size and hash")
