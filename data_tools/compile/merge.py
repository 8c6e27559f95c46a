"""Publishes triples from the shards of a compile, in the order of the input; duplicates are found here."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypedDict

import numpy as np
import orjson

from acc_megatron.common.atomic_files import atomic_folder, write_json
from acc_megatron.common.folder_lock import folder_lock
from acc_megatron.common.json_rows import BadRow
from acc_megatron.common.output_folder import resolve_output
from acc_megatron.common.progress import Progress
from acc_megatron.data_tools.compile.near_duplicates import NearDuplicates, NearSettings
from acc_megatron.data_tools.compile.output import (
    FORMAT,
    MANIFEST,
    MESSAGES,
    REFUSED,
    TRIPLES,
    CompileWriter,
    Place,
    described,
)
from acc_megatron.data_tools.compile.shards import OUTCOMES, SIGNATURES, Outcome
from acc_megatron.data_tools.rows.row_files import DAMAGED_PARQUET
from acc_megatron.data_tools.sharding.work_folder import (
    complete_shards,
    find_work_folder,
    read_record,
    remove_work_folder,
)
from acc_megatron.errors import DataError, Dropped


class CompileRecord(TypedDict):
    """What a merge needs to know about a compile; `manifest` is the part of the manifest that is known at its start."""

    manifest: dict[str, Any]
    shards: int
    num_input_files: int
    bad_resources: list[dict[str, Any]]  # the fields of each BadRow
    near: dict[str, Any]  # the thresholds of NearSettings
    with_messages: bool
    verdicts: dict[str, dict[str, Any]]  # of the judge, because documents depend on them


def is_compile(out: Path) -> bool:
    """Whether `out` is, or will be, the output of a compile: its work folder or its manifest says so."""
    work = find_work_folder(resolve_output(out))
    if work is not None:
        return "bad_resources" in read_record(work)
    try:
        manifest = json.loads((out / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def merge(out: Path, *, max_bad_share: float = 0.01) -> dict[str, Any]:
    """Publish the folder `out` from its finished shards; returns its manifest.

    The bytes are the same as those of `compile` in one process. Where an earlier `merge` has already published `out`,
    nothing is done. Raises DataError when shards are missing, naming them, and TooManyBadRows like `compile`.
    """
    out = resolve_output(out)
    work = find_work_folder(out)
    if work is None:
        print(f"merge: {out} is already published, nothing to do", file=sys.stderr)
        manifest: dict[str, Any] = json.loads((out / MANIFEST).read_bytes())
        return manifest
    with folder_lock(work) as is_locked:
        if not is_locked:
            raise DataError(f"another process is still writing {out}: wait until it ends, then merge")
        return publish(work, out, max_bad_share=max_bad_share)


def publish(work: Path, out: Path, *, max_bad_share: float) -> dict[str, Any]:
    """Like `merge`, for a caller that holds the lock of the work folder."""
    record: CompileRecord = read_record(work)
    shards = complete_shards(work, out, record["shards"])
    with atomic_folder(out) as folder:
        progress = Progress("compile: merge", len(shards))
        with CompileWriter(folder, progress, with_messages=record["with_messages"]) as writer:
            for bad in record["bad_resources"]:
                writer.note_bad_resource(BadRow(**bad))
            merging = _Merging(writer, NearDuplicates(NearSettings(**record["near"])))
            for number, shard in enumerate(shards, start=1):
                _add_shard(shard, merging)
                progress.reach(number)
        writer.check_bad_share(max_bad_share, out)
        summary = writer.summary()
        if not summary["documents_in"]:
            num_rows = record["manifest"]["resources"]["rows"]
            seen = "".join(f"; {path} contains {contents}" for path, contents in list(merging.sidecars.items())[:1])
            num_files = record["num_input_files"]
            raise DataError(f"the {num_files} input files contain no run, only {num_rows} resource rows{seen}")
        manifest = _manifest(record, merging, folder) | summary
        write_json(folder / MANIFEST, manifest)
    remove_work_folder(work)
    _warn_about_tools(summary)
    return manifest


class _Merging:
    """What the rows that were merged so far say about the rows after them."""

    def __init__(self, writer: CompileWriter, duplicates: NearDuplicates) -> None:
        self.writer = writer
        self.duplicates = duplicates
        self.sidecars: dict[str, str] = {}
        self.damaged: set[str] = set()  # Parquet files of which no later row is read


def _add_shard(shard: Path, merging: _Merging) -> None:
    for item in _items(shard):
        place = item.outcome["place"]
        if place["file"] in merging.damaged:
            continue
        if "sidecar" in item.outcome:
            merging.sidecars[place["file"]] = item.outcome["sidecar"]
        elif "entry" in item.outcome:
            _add_document(item, merging)
        else:
            _add_refusal(item.outcome, merging)


def _add_document(item: "_Item", merging: _Merging) -> None:
    entry = item.outcome["entry"]
    try:
        if item.signatures is not None:
            merging.duplicates.check(entry["id"], item.signatures)
        merging.writer.write_lines(entry, item.line, item.message)
    except Dropped as dropped:
        dropped.num_tokens = entry["counts"]["tokens"]
        place = Place(**item.outcome["place"])
        merging.writer.drop(place, entry["agent"], "compile", dropped, is_judged=entry["is_judged"])


def _add_refusal(outcome: Outcome, merging: _Merging) -> None:
    place = Place(**outcome["place"])
    if not outcome["agent"]:
        merging.writer.quarantine(place, outcome["stage"], outcome["reason"], outcome["detail"])
        if outcome["reason"] == DAMAGED_PARQUET:
            merging.damaged.add(place.file)
        return
    dropped = Dropped(outcome["reason"], outcome["detail"], num_tokens=outcome["num_tokens"])
    merging.writer.drop(place, outcome["agent"], outcome["stage"], dropped, is_judged=outcome["is_judged"])


@dataclass(frozen=True, slots=True)
class _Item:
    """What became of a row, with the lines and the signatures of its document."""

    outcome: Outcome
    line: bytes = b""
    message: bytes = b""
    signatures: np.ndarray | None = None


def _items(shard: Path) -> Iterator[_Item]:
    signatures = iter(np.load(shard / SIGNATURES) if (shard / SIGNATURES).is_file() else ())
    messages: IO[bytes] | None = (shard / MESSAGES).open("rb") if (shard / MESSAGES).is_file() else None
    with (shard / OUTCOMES).open("rb") as outcomes, (shard / TRIPLES).open("rb") as triples:
        for text in outcomes:
            outcome: Outcome = orjson.loads(text)
            if "entry" not in outcome:
                yield _Item(outcome)
                continue
            message = messages.read(outcome["message_bytes"]) if messages else b""
            yield _Item(outcome, triples.read(outcome["num_bytes"]), message, next(signatures, None))
    if messages:
        messages.close()


def _manifest(record: CompileRecord, merging: _Merging, folder: Path) -> dict[str, Any]:
    head = record["manifest"]
    names = [name for name in (TRIPLES, REFUSED, MESSAGES) if (folder / name).is_file()]
    return head | {
        "ignored_files": [*head["ignored_files"], *merging.sidecars],
        "files": {name: described(folder / name) | {"file": name} for name in names},
    }


def _warn_about_tools(summary: dict[str, Any]) -> None:
    if num_without := summary["without_tools"]:
        print(
            f"compile: {num_without} of {summary['documents_out']} documents define no tools: their rows have neither "
            "'tools' nor a system prompt in Qwen's form, so the model learns to call tools that it was not given",
            file=sys.stderr,
        )
