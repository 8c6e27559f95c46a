"""Finished shards to a dataset folder: numbered, their sample tables joined, everything hashed, published whole."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from acc_megatron.data_tools.atomic import held, landing, publish_folder, sha256_file, write_json
from acc_megatron.data_tools.dataset_folder import (
    FORMAT_VERSION,
    MANIFEST,
    QUARANTINE,
    SAMPLE_SCHEMA,
    SAMPLES,
    fingerprint,
)
from acc_megatron.data_tools.shards import RESULT
from acc_megatron.errors import DataError, TooManyBadRows

PLAN = "plan.json"
ROWS_PER_GROUP = 8_192  # of the joined sample table, so that joining takes the memory of one group


def work_folder(out: Path) -> Path:
    """Where the finished shards of `out` wait for `merge`; DataError when there is none."""
    found = [path for path in out.parent.glob(".*") if path.name.startswith(f".{out.name}.work-")]
    if len(found) != 1 or not (found[0] / PLAN).is_file():
        raise DataError(f"no unfinished conversion lies beside {out}: run 'convert --shard' for it first")
    return found[0]


def merge(out: Path, *, max_bad_share: float = 0.01) -> dict[str, Any]:
    """Publish the dataset folder `out` from its finished shards; returns its manifest.

    The bytes are those of one process converting everything. Raises DataError when shards are missing, naming
    them, and TooManyBadRows like `convert`.
    """
    out = landing(out)
    work = work_folder(out)
    with held(work) as is_free:
        if not is_free:
            raise DataError(f"{out} is still being made by another process: wait for it, then merge")
        return publish(work, out, max_bad_share=max_bad_share)


def publish(work: Path, out: Path, *, max_bad_share: float) -> dict[str, Any]:
    """`merge` for whoever holds the work folder."""
    plan = json.loads((work / PLAN).read_bytes())
    shards = [work / f"{number:05d}" for number in range(plan["shards"])]
    missing = [number for number, shard in enumerate(shards) if not shard.is_dir()]
    if missing:
        few = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise DataError(f"{len(missing)} of {len(shards)} shards of {out} are not made yet: {few}")
    _check_bad_share(shards, max_bad_share)
    temporary = out.with_name(f".{out.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        manifest = _manifest(plan, _join(shards, temporary))
        write_json(temporary / MANIFEST, manifest)
        publish_folder(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(work)
    return manifest


def _result(shard: Path) -> dict[str, Any]:
    return json.loads((shard / RESULT).read_bytes())


def _check_bad_share(shards: list[Path], max_bad_share: float) -> None:
    num_rows = num_bad = 0
    first: dict[str, Any] | None = None
    for result in map(_result, shards):
        num_rows += result["rows"]
        bad = [row for row in result["refused"] if row["stage"] == "read"]
        num_bad += len(bad)
        first = first or (bad[0] if bad else None)
    if not num_rows:
        raise DataError("the input holds no rows")
    if first and num_bad > max_bad_share * num_rows:
        raise TooManyBadRows(
            f"{num_bad} of {num_rows} rows could not be read (limit {max_bad_share:.1%}, --max-bad); the first: "
            f"{first['file']}:{first['line']}: {first['reason']}: {first['detail']}"
        )


def _join(shards: list[Path], folder: Path) -> dict[str, Any]:
    """Link the shards that hold documents into `folder` with sample table and quarantine; returns what was counted."""
    dropped: Counter[str] = Counter()
    dropped_tokens: Counter[str] = Counter()
    agents: dict[str, Counter[str]] = {}
    files: dict[str, dict[str, Any]] = {}
    number = 0
    with (
        (folder / QUARANTINE).open("w", encoding="utf-8") as quarantine,
        pq.ParquetWriter(folder / SAMPLES, SAMPLE_SCHEMA, write_page_checksum=True) as writer,
    ):
        for table in _row_groups(_tables(shards)):
            writer.write_table(table)
        for shard in shards:
            result = _result(shard)
            for row in result["refused"]:
                dropped[row["reason"]] += 1
                dropped_tokens[row["reason"]] += row.get("tokens", 0)
                quarantine.write(json.dumps(row, ensure_ascii=False) + "\n")
            if not result["documents"]:
                continue
            target = folder / "shards" / f"{number:05d}"
            target.mkdir(parents=True)
            for name, entry in result["files"].items():
                (target / name).hardlink_to(shard / name)
                files[f"shards/{number:05d}/{name}"] = entry
            for agent, counts in result["agents"].items():
                agents.setdefault(agent, Counter()).update(counts)
            number += 1
    if not number:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items()))
        raise DataError(f"no document is left: {dropped.total()} rows dropped ({reasons})")
    for name in (QUARANTINE, SAMPLES):
        files[name] = {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
    counted = {"dropped": dropped, "dropped_tokens": dropped_tokens, "agents": agents}
    return counted | {"files": dict(sorted(files.items())), "shards": number}


def _tables(shards: list[Path]) -> Iterator[pa.Table]:
    for shard in shards:
        yield pq.ParquetFile(shard / SAMPLES).read()  # read_table would import Arrow's whole dataset package


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The rows of small tables again, in tables of about ROWS_PER_GROUP."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= ROWS_PER_GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _manifest(plan: dict[str, Any], joined: dict[str, Any]) -> dict[str, Any]:
    agents = {agent: dict(counts) for agent, counts in sorted(joined["agents"].items())}
    total = {
        key: sum(counts[key] for counts in agents.values()) for key in ("documents", "tokens", "supervised_tokens")
    }
    manifest = {
        "format_version": FORMAT_VERSION,
        "code_version": plan["code_version"],
        "tokenizer": plan["tokenizer"],
        "settings": {key: value for key, value in plan["settings"].items() if key != "tokenizer"},
        "inputs": plan["inputs"],
        "documents_in": total["documents"] + joined["dropped"].total(),
        "documents_out": total["documents"],
        "dropped": dict(sorted(joined["dropped"].items())),
        "tokens_in": total["tokens"] + joined["dropped_tokens"].total(),
        "dropped_tokens": dict(sorted((+joined["dropped_tokens"]).items())),  # of rows that came to be tokenised
        "tokens": total["tokens"],
        "supervised_tokens": total["supervised_tokens"],
        "agents": agents,
        "shards": joined["shards"],
        "files": joined["files"],
    }
    return manifest | {"fingerprint": fingerprint(manifest)}
