"""Verify a dataset folder: the hash of every file and document, and every count."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from acc_megatron.common.atomic_files import sha256_file
from acc_megatron.data_tools.convert.dataset_folder import (
    DatasetFolder,
    is_linked,
    open_dataset,
)
from acc_megatron.data_tools.convert.manifest import MANIFEST, QUARANTINE, DatasetManifest, read_manifest
from acc_megatron.data_tools.convert.shards import document_sha256
from acc_megatron.errors import DataError


def verify(path: Path) -> list[str]:
    """The problems of a dataset folder, one line each that names the file; empty when it is OK."""
    try:
        manifest = read_manifest(path)
    except DataError as error:
        return [str(error)]
    problems = list(_check_files(path, manifest))
    if problems:
        return problems
    try:
        dataset = open_dataset(path)
    except DataError as error:
        return [str(error)]
    return [*_check_counts(dataset), *_check_documents(dataset)]


def _check_files(path: Path, manifest: DatasetManifest) -> Iterator[str]:
    canonical = json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n"
    if (path / MANIFEST).read_bytes() != canonical:
        yield f"{path / MANIFEST}: its bytes were changed"
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file():
            yield f"{file}: missing"
        elif is_linked(path, name):
            yield f"{file}: a symbolic link or inside a linked folder; a dataset must contain the file itself"
        elif file.stat().st_size != entry["bytes"]:
            yield f"{file}: {file.stat().st_size} bytes, expected {entry['bytes']}"
        elif (actual := sha256_file(file)) != entry["sha256"]:
            yield f"{file}: sha256 {actual}, expected {entry['sha256']}"
    known = {path / name for name in manifest["files"]} | {path / MANIFEST}
    for file in sorted(path.rglob("*")):
        if (file.is_symlink() or not file.is_dir()) and file not in known:
            yield f"{file}: not in the manifest"


def _check_counts(dataset: DatasetFolder) -> Iterator[str]:
    manifest, samples = dataset.manifest, dataset.samples
    dropped = sum(manifest["dropped"].values())
    try:
        refused = [json.loads(line) for line in (dataset.path / QUARANTINE).read_bytes().splitlines()]
        refused_tokens = sum(row.get("tokens", 0) for row in refused)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        yield f"{dataset.path / QUARANTINE}: a line is not a refused row: {error}"
        return
    tokens = int(samples["tokens"].to_numpy().sum())
    sums = {
        "documents_out": len(samples),
        "tokens": tokens,
        "tokens_in": tokens + refused_tokens,
        "supervised_tokens": int(samples["supervised_tokens"].to_numpy().sum()),
        "documents_in": len(samples) + dropped,
    }
    for key, value in sums.items():
        if manifest.get(key) != value:
            yield f"{dataset.path / MANIFEST}: {key} is {manifest.get(key)}, the files add up to {value}"
    if len(refused) != dropped:
        yield f"{dataset.path / QUARANTINE}: {len(refused)} rows, but the manifest counts {dropped} dropped rows"
    if refused_tokens != (counted := sum(manifest["dropped_tokens"].values())):
        yield f"{dataset.path / QUARANTINE}: {refused_tokens} tokens, but the manifest counts {counted} dropped tokens"


def _check_documents(dataset: DatasetFolder) -> Iterator[str]:
    vocab_size = dataset.manifest["tokenizer"]["vocab_size"]
    columns = {
        name: dataset.samples[name].to_pylist() for name in ("sha256", "supervised_tokens", "first_supervised_token")
    }
    for number in range(len(dataset)):
        ids, mask = dataset.document(number)
        where = f"{dataset.path}: document {number}"
        if document_sha256(ids, mask) != columns["sha256"][number]:
            yield f"{where}: its ids or its mask do not match the sha256 in samples.parquet"
        elif int(ids.min()) < 0 or int(ids.max()) >= vocab_size:
            yield f"{where}: ids {ids.min()}..{ids.max()} are outside the vocabulary of {vocab_size}"
        elif int(mask.max(initial=0)) > 1 or int(np.count_nonzero(mask)) != columns["supervised_tokens"][number]:
            yield f"{where}: its mask does not have {columns['supervised_tokens'][number]} ones"
        elif not mask.any() or int(mask.argmax()) != columns["first_supervised_token"][number]:
            yield f"{where}: its mask does not start at token {columns['first_supervised_token'][number]}"
