"""One shard of a dataset: it depends only on a slice of the input, and is published as a folder."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypedDict
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acc_megatron.common.atomic_files import atomic_folder, write_json
from acc_megatron.common.json_rows import BadRow, Row
from acc_megatron.data_tools.convert.dataset_folder import SAMPLE_SCHEMA
from acc_megatron.data_tools.convert.indexed_file import IndexedWriter
from acc_megatron.data_tools.convert.input_rows import Example, extra_json, read_example
from acc_megatron.data_tools.convert.manifest import SAMPLES, AgentCounts, FileEntry, RefusedRow
from acc_megatron.data_tools.convert.render import INSTRUCTION, Rendered, render_turns
from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.data_tools.sharding.row_ranges import RowRange, read_rows
from acc_megatron.data_tools.sharding.worker_processes import ShardCounts
from acc_megatron.data_tools.tokenizer.gigatoken_engine import with_engine, with_fallback
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer, load_tokenizer
from acc_megatron.errors import DataError, Dropped

RESULT = "result.json"
BLOCK_TOKENS = 1 << 20
OPENING_TOKENS = (48, 256)  # the instruction and what a template writes before it fit, without and with tools


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSettings:
    """What the bytes of a dataset depend on, apart from its input."""

    tokenizer: str = "qwen3"
    template: str = "qwen3"
    max_tokens: int = 131_072


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to make: a slice of the input, the folder to publish, and the engine (which changes no byte).

    `weight` says how often each row is used; see `num_copies`.
    """

    rows: RowRange
    settings: ConvertSettings
    folder: Path
    engine: str = "tiktoken"
    weight: float = 1.0


class ShardResult(TypedDict):
    """result.json of a shard: what `merge` needs to know about it."""

    rows: int
    documents: int
    agents: dict[str, AgentCounts]
    refused: list[RefusedRow]
    files: dict[str, FileEntry]


@lru_cache(maxsize=4)
def tokenizer_on(name: str, engine: str) -> Tokenizer:
    """The tokenizer of a conversion, loaded once; forked workers inherit it."""
    return with_engine(load_tokenizer(name), engine)


def make_shard(task: ShardTask) -> ShardCounts:
    """Read one slice, render every row, and publish the shard's folder.

    When the fast engine disagrees with tiktoken on a sample, the shard is made again with tiktoken only.
    """
    fast, plain = (tokenizer_on(task.settings.tokenizer, engine) for engine in (task.engine, "tiktoken"))
    return with_fallback(partial(_make_shard, task), fast, plain, f"convert: shard {task.folder.name}")


def _make_shard(task: ShardTask, tokenizer: Tokenizer) -> ShardCounts:
    samples: list[dict[str, Any]] = []
    refused: list[RefusedRow] = []
    counts: Counter[str] = Counter()
    with atomic_folder(task.folder) as folder:
        tokens = IndexedWriter(folder / "tokens", np.int32, limit=tokenizer.vocab_size)
        masks = IndexedWriter(folder / "loss_mask", np.uint8, limit=2)
        with tokens, masks:
            for rendered in _documents(task, tokenizer, samples, refused, counts):
                tokens.add(rendered.ids)
                masks.add(rendered.mask)
        pq.write_table(pa.Table.from_pylist(samples, SAMPLE_SCHEMA), folder / SAMPLES, write_page_checksum=True)
        num_rows = counts["rows"]
        if num_rows != task.rows.num_rows:
            raise DataError(
                f"{task.rows.path} changed while it was read: {num_rows} rows, expected {task.rows.num_rows}; run again"
            )
        result: ShardResult = {
            "rows": num_rows,
            "documents": len(samples),
            "agents": _by_agent(samples),
            "refused": refused,
            "files": tokens.files | masks.files,
        }
        write_json(folder / RESULT, result)
    num_tokens = sum(sample["tokens"] for sample in samples)
    return {"documents": len(samples), "tokens": num_tokens, "dropped": len(refused)}


def _by_agent(samples: list[dict[str, Any]]) -> dict[str, AgentCounts]:
    agents: dict[str, AgentCounts] = {}
    for sample in samples:
        counts = agents.setdefault(sample["agent"], {"documents": 0, "tokens": 0, "supervised_tokens": 0})
        counts["documents"] += 1
        counts["tokens"] += sample["tokens"]
        counts["supervised_tokens"] += sample["supervised_tokens"]
    return agents


def _documents(
    task: ShardTask,
    tokenizer: Tokenizer,
    samples: list[dict[str, Any]],
    refused: list[RefusedRow],
    counts: Counter[str],
) -> Iterator[Rendered]:
    for row in read_rows(task.rows):
        counts["rows"] += 1
        if isinstance(row, BadRow):
            refused.append(_refused(row, "read", row.reason, row.detail))
            continue
        if not (copies := num_copies(row.line, task.weight)):
            detail = f"the weight of its input is {task.weight:g}"
            refused.append(_refused(row, "weight", "left_out_by_weight", detail))
            continue
        try:
            example = read_example(row)
            rendered = _render(example, tokenizer, task.settings)
        except DataError as error:
            refused.append(_refused(row, "read", "unknown_shape", str(error)))
        except Dropped as drop:
            refused.append({**_refused(row, "render", drop.reason, drop.detail), "tokens": drop.num_tokens})
        else:
            samples += [_sample(example, rendered, tokenizer)] * copies
            yield from [rendered] * copies


def num_copies(line: int, weight: float) -> int:
    """How often a row is used: `weight` times, rounded up or down at random so that the mean over rows is right.

    The random number depends on the line only, so a row of an input with a larger weight is never used less often.
    """
    digest = hashlib.sha256(f"weight\0{line}".encode()).digest()
    return int(weight + int.from_bytes(digest[:8]) / 2**64)


def _refused(row: Row | BadRow, stage: str, reason: str, detail: str) -> RefusedRow:
    return {
        "file": Path(row.file).name,
        "line": row.line,
        "byte_offset": row.byte_offset,
        "stage": stage,
        "reason": reason,
        "detail": detail,
    }


def _render(example: Example, tokenizer: Tokenizer, settings: ConvertSettings) -> Rendered:
    rendered = example.rendered or render_turns(example.turns, tokenizer, TEMPLATES[settings.template])
    if example.rendered:
        _check_tokens(example.rendered, tokenizer)
    if (num_tokens := len(rendered.ids)) > settings.max_tokens:
        detail = f"{num_tokens} tokens, the limit is {settings.max_tokens}"
        raise Dropped("over_max_tokens", detail, num_tokens=num_tokens)
    return rendered


def _check_tokens(rendered: Rendered, tokenizer: Tokenizer) -> None:
    """Check a row that was tokenized elsewhere. Raises Dropped."""
    if not rendered.mask.any():
        raise Dropped("nothing_supervised", "every label is -100")
    if int(rendered.ids.min()) < 0 or int(rendered.ids.max()) >= tokenizer.vocab_size:
        found = f"ids {rendered.ids.min()}..{rendered.ids.max()}"
        raise Dropped("id_outside_vocabulary", f"{found}, the vocabulary of {tokenizer.name} is {tokenizer.vocab_size}")


def _sample(example: Example, rendered: Rendered, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "id": example.id,
        "agent": example.agent,
        "tokens": len(rendered.ids),
        "supervised_tokens": int(np.count_nonzero(rendered.mask)),
        "num_evidence": example.num_evidence,
        "num_distractors": example.num_distractors,
        "first_supervised_token": int(rendered.mask.argmax()),
        "sha256": document_sha256(rendered.ids, rendered.mask),
        "pieces": _pieces(example, rendered, tokenizer),
        "extra": extra_json(example.extra),
    }


def _pieces(example: Example, rendered: Rendered, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The tokens of each piece of the context, heading included, found by counting bytes."""
    if not example.context:
        return []
    openings = (tokenizer.decode(rendered.ids[:num_tokens]) for num_tokens in OPENING_TOKENS)
    before, _, _ = next(text for text in openings if INSTRUCTION in text).partition(INSTRUCTION)
    sizes = [len(before.encode()) + len(f"{INSTRUCTION}\n\n")]
    for number, piece in enumerate(example.context, 1):
        sizes.append(len(f"[Document {number}] \n\n\n") + _num_bytes(piece.title) + _num_bytes(piece.text))
    bounds = _num_tokens_within(rendered.ids[: rendered.num_prompt_tokens], np.cumsum(sizes), tokenizer)
    return [
        {"kind": piece.kind, "title": piece.title, "first_token": first, "tokens": last - first}
        for piece, first, last in zip(example.context, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]


def _num_tokens_within(ids: np.ndarray, sizes_bytes: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """How many of the first tokens fit into each number of bytes, `[sizes]`; in blocks, to bound memory."""
    found, num_bytes = np.zeros(len(sizes_bytes), np.int64), 0
    for start in range(0, len(ids), BLOCK_TOKENS):
        ends = tokenizer.byte_lengths.take(ids[start : start + BLOCK_TOKENS]).cumsum(dtype=np.int64)
        found += np.searchsorted(ends, sizes_bytes - num_bytes, side="right")
        num_bytes += int(ends[-1])
    return found


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(normalize("NFC", text).encode())


def document_sha256(ids: np.ndarray, mask: np.ndarray) -> str:
    """The hash of a document in the sample table: of its int32 ids followed by its uint8 mask."""
    digest = hashlib.sha256(np.ascontiguousarray(ids).data)
    digest.update(np.ascontiguousarray(mask).data)
    return digest.hexdigest()
