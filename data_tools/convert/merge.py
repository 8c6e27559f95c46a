"""Publish a dataset folder from finished shards: number them, join their sample tables, hash everything."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from acc_megatron.common.atomic_files import publish_folder, sha256_file, write_json
from acc_megatron.common.folder_lock import folder_lock
from acc_megatron.common.output_folder import resolve_output
from acc_megatron.data_tools.convert.dataset_folder import SAMPLE_SCHEMA
from acc_megatron.data_tools.convert.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    QUARANTINE,
    SAMPLES,
    ConversionRecord,
    DatasetManifest,
    FileEntry,
    RefusedRow,
    fingerprint,
    read_manifest,
)
from acc_megatron.data_tools.convert.shards import RESULT, ShardResult
from acc_megatron.data_tools.sharding.work_folder import (
    complete_shards,
    find_work_folder,
    read_record,
    remove_work_folder,
)
from acc_megatron.errors import DataError, TooManyBadRows

ROWS_PER_GROUP = 8_192  # of the joined sample table: joining needs the memory of one group


def merge(out: Path, *, max_bad_share: float = 0.01) -> DatasetManifest:
    """Publish the dataset folder `out` from its finished shards; returns its manifest.

    The bytes are the same as those of `convert` in one process. Where an earlier `merge` has already published `out`,
    nothing is done. Raises DataError when shards are missing, naming them, and TooManyBadRows like `convert`.
    """
    out = resolve_output(out)
    work = find_work_folder(out)
    if work is None:
        if not (out / MANIFEST).is_file():
            raise DataError(f"no shards of {out} to merge: run 'acc-megatron convert --shard I/N --out {out}' first")
        manifest = read_manifest(out)
        print(f"merge: {out} is already published, nothing to do", file=sys.stderr)
        return manifest
    with folder_lock(work) as is_locked:
        if not is_locked:
            raise DataError(f"another process is still writing {out}: wait until it ends, then merge")
        return publish(work, out, max_bad_share=max_bad_share)


def publish(work: Path, out: Path, *, max_bad_share: float) -> DatasetManifest:
    """Like `merge`, for a caller that holds the lock of the work folder."""
    record: ConversionRecord = read_record(work)
    shards = complete_shards(work, out, record["shards"])
    _check_bad_share(shards, max_bad_share)
    temporary = out.with_name(f".{out.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        manifest = _manifest(record, _join(shards, temporary))
        write_json(temporary / MANIFEST, manifest)
        publish_folder(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    remove_work_folder(work)
    return manifest


def _result(shard: Path) -> ShardResult:
    return json.loads((shard / RESULT).read_bytes())


def _check_bad_share(shards: list[Path], max_bad_share: float) -> None:
    num_rows = num_bad = 0
    first: RefusedRow | None = None
    for result in map(_result, shards):
        num_rows += result["rows"]
        bad = [row for row in result["refused"] if row["stage"] == "read"]
        num_bad += len(bad)
        first = first or (bad[0] if bad else None)
    if not num_rows:
        raise DataError("the input contains no rows")
    if first and num_bad > max_bad_share * num_rows:
        raise TooManyBadRows(
            f"{num_bad} of {num_rows} rows could not be read (limit {max_bad_share:.1%}, --max-bad); the first: "
            f"{first['file']}:{first['line']}: {first['reason']}: {first['detail']}"
        )


@dataclass
class _Joined:
    """Files and counts of the joined shards."""

    dropped: Counter[str] = field(default_factory=Counter)
    dropped_tokens: Counter[str] = field(default_factory=Counter)
    agents: dict[str, Counter[str]] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    num_shards: int = 0


def _join(shards: list[Path], folder: Path) -> _Joined:
    """Link the shards that contain documents into `folder`, and write its sample table and quarantine."""
    joined = _Joined()
    with (
        (folder / QUARANTINE).open("w", encoding="utf-8") as quarantine,
        pq.ParquetWriter(folder / SAMPLES, SAMPLE_SCHEMA, write_page_checksum=True) as writer,
    ):
        for table in _row_groups(_tables(shards)):
            writer.write_table(table)
        for shard in shards:
            result = _result(shard)
            for row in result["refused"]:
                joined.dropped[row["reason"]] += 1
                joined.dropped_tokens[row["reason"]] += row.get("tokens", 0)
                quarantine.write(json.dumps(row, ensure_ascii=False) + "\n")
            if result["documents"]:
                _link_shard(shard, result, folder, joined)
    if not joined.num_shards:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(joined.dropped.items()))
        raise DataError(f"no document is left: {joined.dropped.total()} rows were dropped ({reasons})")
    for name in (QUARANTINE, SAMPLES):
        joined.files[name] = {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
    return joined


def _link_shard(shard: Path, result: ShardResult, folder: Path, joined: _Joined) -> None:
    """Give a shard with documents the next number in `folder`."""
    name = f"shards/{joined.num_shards:05d}"
    (folder / name).mkdir(parents=True)
    for file, entry in result["files"].items():
        (folder / name / file).hardlink_to(shard / file)
        joined.files[f"{name}/{file}"] = entry
    for agent, counts in result["agents"].items():
        joined.agents.setdefault(agent, Counter()).update(cast(dict[str, int], counts))
    joined.num_shards += 1


def _tables(shards: list[Path]) -> Iterator[pa.Table]:
    for shard in shards:
        yield pq.ParquetFile(shard / SAMPLES).read()  # read_table would import all of pyarrow.dataset


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The rows of small tables, combined into tables of about ROWS_PER_GROUP."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= ROWS_PER_GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _manifest(record: ConversionRecord, joined: _Joined) -> DatasetManifest:
    agents: dict[str, Any] = {agent: dict(counts) for agent, counts in sorted(joined.agents.items())}
    total = {
        key: sum(counts[key] for counts in agents.values()) for key in ("documents", "tokens", "supervised_tokens")
    }
    manifest: DatasetManifest = {
        "format_version": FORMAT_VERSION,
        "code_version": record["code_version"],
        "tokenizer": record["tokenizer"],
        "settings": {key: value for key, value in record["settings"].items() if key != "tokenizer"},
        "inputs": record["inputs"],
        "documents_in": total["documents"] + joined.dropped.total(),
        "documents_out": total["documents"],
        "dropped": dict(sorted(joined.dropped.items())),
        "tokens_in": total["tokens"] + joined.dropped_tokens.total(),
        "dropped_tokens": dict(sorted((+joined.dropped_tokens).items())),
        "tokens": total["tokens"],
        "supervised_tokens": total["supervised_tokens"],
        "agents": agents,
        "shards": joined.num_shards,
        "files": dict(sorted(joined.files.items())),
        "fingerprint": "",
    }
    manifest["fingerprint"] = fingerprint(manifest)
    return manifest
