"""Prove a dataset folder whole: every byte under its hash, every document under its own, the books balanced."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from acc_megatron.data_tools.atomic import sha256_file
from acc_megatron.data_tools.dataset_folder import (
    MANIFEST,
    QUARANTINE,
    DatasetFolder,
    is_linked,
    open_dataset,
    read_manifest,
)
from acc_megatron.data_tools.shards import document_sha256
from acc_megatron.errors import DataError


def verify(path: Path) -> list[str]:
    """What is wrong with a dataset folder, a line each naming the file; empty when it is whole."""
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
    return [*_check_books(dataset), *_check_documents(dataset)]


def _check_files(path: Path, manifest: dict) -> Iterator[str]:
    canonical = json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n"
    if (path / MANIFEST).read_bytes() != canonical:
        yield f"{path / MANIFEST}: its bytes were changed"
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file():
            yield f"{file}: missing"
        elif is_linked(path, name):
            yield f"{file}: a link or behind one; only the file itself is part of the dataset"
        elif file.stat().st_size != entry["bytes"]:
            yield f"{file}: {file.stat().st_size} bytes, expected {entry['bytes']}"
        elif (actual := sha256_file(file)) != entry["sha256"]:
            yield f"{file}: sha256 {actual}, expected {entry['sha256']}"
    known = {path / name for name in manifest["files"]} | {path / MANIFEST}
    for file in sorted(path.rglob("*")):
        if (file.is_symlink() or not file.is_dir()) and file not in known:
            yield f"{file}: not in the manifest"


def _check_books(dataset: DatasetFolder) -> Iterator[str]:
    manifest, samples = dataset.manifest, dataset.samples
    dropped = sum(manifest["dropped"].values())
    try:
        refused = [json.loads(line) for line in (dataset.path / QUARANTINE).read_bytes().splitlines()]
        refused_tokens = sum(row.get("tokens", 0) for row in refused)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        yield f"{dataset.path / QUARANTINE}: holds a line that is no refused row: {error}"
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
            yield f"{dataset.path / MANIFEST}: {key} is {manifest.get(key)}, the files say {value}"
    if len(refused) != dropped:
        yield f"{dataset.path / QUARANTINE}: {len(refused)} rows, the manifest counts {dropped} dropped"
    if refused_tokens != sum(manifest["dropped_tokens"].values()):
        yield f"{dataset.path / QUARANTINE}: {refused_tokens} tokens, not those of the manifest's dropped_tokens"


def _check_documents(dataset: DatasetFolder) -> Iterator[str]:
    vocab_size = dataset.manifest["tokenizer"]["vocab_size"]
    columns = {
        name: dataset.samples[name].to_pylist() for name in ("sha256", "supervised_tokens", "first_supervised_token")
    }
    for number in range(len(dataset)):
        ids, mask = dataset.document(number)
        where = f"{dataset.path}: document {number}"
        if document_sha256(ids, mask) != columns["sha256"][number]:
            yield f"{where}: its ids or mask are not those of samples.parquet"
        elif int(ids.min()) < 0 or int(ids.max()) >= vocab_size:
            yield f"{where}: ids {ids.min()}..{ids.max()} leave the vocabulary of {vocab_size}"
        elif int(mask.max(initial=0)) > 1 or int(np.count_nonzero(mask)) != columns["supervised_tokens"][number]:
            yield f"{where}: its mask does not hold {columns['supervised_tokens'][number]} ones"
        elif not mask.any() or int(mask.argmax()) != columns["first_supervised_token"][number]:
            yield f"{where}: its mask does not start at token {columns['first_supervised_token'][number]}"
