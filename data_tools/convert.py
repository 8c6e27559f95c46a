"""Triples to a dataset folder: each shard a pure function of a slice of the input, published whole.

A finished shard is kept when a run is killed and not made again by the next one. The bytes do not depend on
the number of workers, on kills, or on where the input lies.
"""

import glob
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acc_megatron import __version__
from acc_megatron.data_tools.atomic import atomic_folder, publish_folder, sha256_file, write_json
from acc_megatron.data_tools.conversation import render_conversation
from acc_megatron.data_tools.dataset_folder import (
    FORMAT_VERSION,
    MANIFEST,
    QUARANTINE,
    SAMPLE_SCHEMA,
    SAMPLES,
    fingerprint,
)
from acc_megatron.data_tools.examples_in import (
    Example,
    RowRange,
    extra_json,
    input_files,
    read_example,
    read_rows,
    row_ranges,
)
from acc_megatron.data_tools.indexed import write_indexed
from acc_megatron.data_tools.jsonl import BadRow
from acc_megatron.data_tools.render import TEMPLATES, Rendered, render_turns
from acc_megatron.data_tools.schema import Dropped
from acc_megatron.data_tools.tokenizer import Tokenizer, load_tokenizer
from acc_megatron.errors import DataError, TooManyBadRows

ROWS_PER_SHARD = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSettings:
    """What the bytes of a dataset depend on, besides its input."""

    tokenizer: str = "qwen3"
    template: str = "qwen3"
    max_tokens: int = 131_072


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to make: a slice of the input, and the folder it appears in."""

    rows: RowRange
    settings: ConvertSettings
    folder: Path


def convert(
    inputs: list[Path], out: Path, settings: ConvertSettings, *, num_workers: int = 1, max_bad_share: float = 0.01
) -> dict[str, Any]:
    """Convert triples or published ACC rows into the dataset folder `out`; returns its manifest.

    Rows that break a rule are dropped with a reason; rows that cannot be read or are of an unknown shape are
    quarantined, and more than `max_bad_share` of those raises TooManyBadRows. Raises DataError.
    """
    if settings.template not in TEMPLATES:
        raise DataError(f"unknown template {settings.template!r}; known: {', '.join(TEMPLATES)}")
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not a dataset folder; give another --out")
    tokenizer = load_tokenizer(settings.tokenizer)
    files = input_files(inputs)
    sources = [{"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_file(file)} for file in files]
    plan = {
        "code_version": __version__,
        "settings": asdict(settings),
        "tokenizer_sha256": tokenizer.sha256,
        "inputs": sources,
    }
    work = _work_folder(out, plan)
    ranges = [rows for file in files for rows in row_ranges(file, ROWS_PER_SHARD)]
    tasks = [ShardTask(rows, settings, work / f"{number:05d}") for number, rows in enumerate(ranges)]
    _run(tasks, num_workers)
    results = [json.loads((task.folder / "result.json").read_bytes()) for task in tasks]
    _check_bad_share(results, max_bad_share)
    manifest = _assemble(out, tasks, results, plan, tokenizer)
    shutil.rmtree(work)
    return manifest


def _work_folder(out: Path, plan: dict[str, Any]) -> Path:
    """Where finished shards wait; what another input or setting left there is removed."""
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]
    work = out.with_name(f".{out.name}.work-{digest}")
    for old in out.parent.glob(f".{glob.escape(out.name)}.work-*") if out.parent.is_dir() else ():
        if old != work:
            shutil.rmtree(old)
    work.mkdir(parents=True, exist_ok=True)
    return work


def _run(tasks: list[ShardTask], num_workers: int) -> None:
    todo = [task for task in tasks if not task.folder.is_dir()]
    if len(todo) < len(tasks):
        print(f"convert: {len(tasks) - len(todo)} of {len(tasks)} shards are there already", file=sys.stderr)
    start = time.monotonic()
    for done, _ in enumerate(_in_processes(todo, num_workers), start=1):
        elapsed = time.monotonic() - start
        print(f"convert: shard {done} of {len(todo)}, {elapsed:.0f} s", file=sys.stderr)


def _in_processes(tasks: list[ShardTask], num_workers: int) -> Iterator[None]:
    if num_workers <= 1 or len(tasks) <= 1:
        yield from map(make_shard, tasks)
        return
    with ProcessPoolExecutor(min(num_workers, len(tasks)), initializer=_end_with_parent) as pool:
        for future in as_completed([pool.submit(make_shard, task) for task in tasks]):
            yield future.result()


def _end_with_parent() -> None:
    """A killed parent must not leave its workers waiting for ever, or writing under the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only worker processes call this"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@lru_cache(maxsize=1)
def _tokenizer(name: str) -> Tokenizer:
    return load_tokenizer(name)


def make_shard(task: ShardTask) -> None:
    """Read one slice, render every row, and publish the shard's folder: tokens, mask, samples and counts."""
    samples: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    with atomic_folder(task.folder) as folder:
        documents = _documents(task, samples, refused)
        masks = _MaskSpool(folder / "masks.tmp")
        write_indexed(folder / "tokens", masks.keep(documents), np.int32)
        write_indexed(folder / "loss_mask", masks.replay(), np.uint8)
        table = pa.Table.from_pylist(samples, SAMPLE_SCHEMA)
        pq.write_table(table, folder / SAMPLES, write_page_checksum=True)
        num_rows = len(samples) + len(refused)
        if num_rows != task.rows.num_rows:
            raise DataError(f"{task.rows.path} changed while it was read: {num_rows} rows, not {task.rows.num_rows}")
        write_json(folder / "result.json", {"rows": num_rows, "refused": refused})


class _MaskSpool:
    """Masks of a shard parked on disk while its tokens are written, so that memory holds one document."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lengths: list[int] = []

    def keep(self, documents: Iterator[Rendered]) -> Iterator[np.ndarray]:
        with self._path.open("wb") as file:
            for rendered in documents:
                file.write(rendered.mask.data)
                self._lengths.append(len(rendered.mask))
                yield rendered.ids

    def replay(self) -> Iterator[np.ndarray]:
        with self._path.open("rb") as file:
            for length in self._lengths:
                yield np.frombuffer(file.read(length), np.uint8)
        self._path.unlink()


def _documents(task: ShardTask, samples: list[dict[str, Any]], refused: list[dict[str, Any]]) -> Iterator[Rendered]:
    tokenizer = _tokenizer(task.settings.tokenizer)
    for row in read_rows(task.rows):
        place = {"file": Path(row.file).name, "line": row.line, "byte_offset": row.byte_offset}
        if isinstance(row, BadRow):
            refused.append(place | {"stage": "read", "reason": row.reason, "detail": row.detail})
            continue
        try:
            example = read_example(row)
            rendered = _render(example, tokenizer, task.settings)
        except DataError as error:
            refused.append(place | {"stage": "read", "reason": "unknown_shape", "detail": str(error)})
        except Dropped as drop:
            refused.append(place | {"stage": "render", "reason": drop.reason, "detail": drop.detail})
        else:
            samples.append(_sample(example, rendered))
            yield rendered


def _render(example: Example, tokenizer: Tokenizer, settings: ConvertSettings) -> Rendered:
    if example.turns:
        rendered = render_conversation(example.turns, tokenizer, settings.template)
    else:
        rendered = render_turns(example.user, example.reasoning, example.answer, tokenizer, settings.template)
    if len(rendered.ids) > settings.max_tokens:
        raise Dropped("over_max_tokens", f"{len(rendered.ids)} tokens, the limit is {settings.max_tokens}")
    return rendered


def _sample(example: Example, rendered: Rendered) -> dict[str, Any]:
    return {
        "id": example.id,
        "agent": example.agent,
        "tokens": len(rendered.ids),
        "supervised_tokens": int(rendered.mask.sum()),
        "num_evidence": example.num_evidence,
        "num_distractors": example.num_distractors,
        "first_supervised_token": int(rendered.mask.argmax()),
        "sha256": document_sha256(rendered.ids, rendered.mask),
        "extra": extra_json(example.extra),
    }


def document_sha256(ids: np.ndarray, mask: np.ndarray) -> str:
    """The hash kept for each document: of its int32 ids followed by its uint8 mask."""
    digest = hashlib.sha256(np.ascontiguousarray(ids).data)
    digest.update(np.ascontiguousarray(mask).data)
    return digest.hexdigest()


def _check_bad_share(results: list[dict[str, Any]], max_bad_share: float) -> None:
    num_rows = sum(result["rows"] for result in results)
    bad = [row for result in results for row in result["refused"] if row["stage"] == "read"]
    if not num_rows:
        raise DataError("the input holds no rows")
    if len(bad) > max_bad_share * num_rows:
        first = bad[0]
        raise TooManyBadRows(
            f"{len(bad)} of {num_rows} rows could not be read (limit {max_bad_share:.1%}, --max-bad); the first: "
            f"{first['file']}:{first['line']}: {first['reason']}: {first['detail']}"
        )


def _assemble(
    out: Path, tasks: list[ShardTask], results: list[dict[str, Any]], plan: dict[str, Any], tokenizer: Tokenizer
) -> dict[str, Any]:
    """Number the shards that hold documents, join their sample tables, hash everything, publish the folder."""
    refused = [row for result in results for row in result["refused"]]
    with_documents = [
        task for task, result in zip(tasks, results, strict=True) if result["rows"] > len(result["refused"])
    ]
    if not with_documents:
        reasons = Counter(row["reason"] for row in refused)
        raise DataError(f"no document is left: {len(refused)} rows dropped ({_counts(reasons)})")
    temporary = out.with_name(f".{out.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    tables = []
    for number, task in enumerate(with_documents):
        folder = temporary / "shards" / f"{number:05d}"
        folder.mkdir(parents=True)
        for name in ("tokens.bin", "tokens.idx", "loss_mask.bin", "loss_mask.idx"):
            (folder / name).hardlink_to(task.folder / name)
        tables.append(pq.read_table(task.folder / SAMPLES, schema=SAMPLE_SCHEMA))
    samples = pa.concat_tables(tables)
    pq.write_table(samples, temporary / SAMPLES, write_page_checksum=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in refused]
    (temporary / QUARANTINE).write_text("".join(lines), encoding="utf-8")
    manifest = _manifest(temporary, samples, refused, len(with_documents), plan, tokenizer)
    write_json(temporary / MANIFEST, manifest)
    publish_folder(temporary, out)
    return manifest


def _manifest(
    folder: Path,
    samples: pa.Table,
    refused: list[dict[str, Any]],
    num_shards: int,
    plan: dict[str, Any],
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    files = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    agents = samples.group_by("agent").aggregate([("id", "count"), ("tokens", "sum"), ("supervised_tokens", "sum")])
    manifest = {
        "format_version": FORMAT_VERSION,
        "code_version": plan["code_version"],
        "tokenizer": {
            "name": tokenizer.name,
            "sha256": tokenizer.sha256,
            "vocab_size": tokenizer.vocab_size,
            "pad_id": tokenizer.control["<|endoftext|>"],
        },
        "settings": {key: value for key, value in plan["settings"].items() if key != "tokenizer"},
        "inputs": plan["inputs"],
        "documents_in": len(samples) + len(refused),
        "documents_out": len(samples),
        "dropped": dict(sorted(Counter(row["reason"] for row in refused).items())),
        "tokens": int(samples["tokens"].to_numpy().sum()),
        "supervised_tokens": int(samples["supervised_tokens"].to_numpy().sum()),
        "agents": {
            row["agent"]: {
                "documents": row["id_count"],
                "tokens": row["tokens_sum"],
                "supervised_tokens": row["supervised_tokens_sum"],
            }
            for row in sorted(agents.to_pylist(), key=lambda row: row["agent"])
        },
        "shards": num_shards,
        "files": files,
    }
    return manifest | {"fingerprint": fingerprint(manifest)}


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counter.items()))
