"""One shard of a dataset: a pure function of a slice of the input, published whole as a folder of its own."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acc_megatron.data_tools.atomic import atomic_folder, write_json
from acc_megatron.data_tools.conversation import render_conversation
from acc_megatron.data_tools.dataset_folder import SAMPLE_SCHEMA, SAMPLES
from acc_megatron.data_tools.examples_in import Example, RowRange, extra_json, read_example, read_rows
from acc_megatron.data_tools.fast_encoder import EngineDisagrees, FastTokenizer, with_engine
from acc_megatron.data_tools.indexed import IndexedWriter
from acc_megatron.data_tools.jsonl import BadRow
from acc_megatron.data_tools.render import INSTRUCTION, Rendered, render_turns
from acc_megatron.data_tools.schema import Dropped
from acc_megatron.data_tools.tokenizer import Tokenizer, load_tokenizer
from acc_megatron.errors import DataError

RESULT = "result.json"
BLOCK_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSettings:
    """What the bytes of a dataset depend on, besides its input."""

    tokenizer: str = "qwen3"
    template: str = "qwen3"
    max_tokens: int = 131_072


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to make: a slice of the input, the folder it appears in, and the engine (no byte depends on it)."""

    rows: RowRange
    settings: ConvertSettings
    folder: Path
    engine: str = "tiktoken"


@lru_cache(maxsize=4)
def tokenizer_on(name: str, engine: str) -> Tokenizer:
    """The tokenizer of a conversion; forked workers find the one their parent loaded."""
    return with_engine(load_tokenizer(name), engine)


def make_shard(task: ShardTask) -> dict[str, Any]:
    """Read one slice, render every row, and publish the shard's folder; returns its counts for the progress line.

    Where the fast engine disagrees with the reference on a sample, the shard is made with the reference alone.
    """
    tokenizer = tokenizer_on(task.settings.tokenizer, task.engine)
    if isinstance(tokenizer, FastTokenizer):
        tokenizer.sample_next()  # no shard without one, and the same ones whoever makes the shard
    try:
        return _make_shard(task, tokenizer)
    except EngineDisagrees:
        print(f"convert: {task.engine} disagrees with tiktoken in {task.folder.name}: left out there", file=sys.stderr)
        return _make_shard(task, tokenizer_on(task.settings.tokenizer, "tiktoken"))


def _make_shard(task: ShardTask, tokenizer: Tokenizer) -> dict[str, Any]:
    samples: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    with atomic_folder(task.folder) as folder:
        tokens = IndexedWriter(folder / "tokens", np.int32, limit=tokenizer.vocab_size)
        masks = IndexedWriter(folder / "loss_mask", np.uint8, limit=2)
        with tokens, masks:
            for rendered in _documents(task, tokenizer, samples, refused):
                tokens.add(rendered.ids)
                masks.add(rendered.mask)
        pq.write_table(pa.Table.from_pylist(samples, SAMPLE_SCHEMA), folder / SAMPLES, write_page_checksum=True)
        num_rows = len(samples) + len(refused)
        if num_rows != task.rows.num_rows:
            raise DataError(f"{task.rows.path} changed while it was read: {num_rows} rows, not {task.rows.num_rows}")
        result = {
            "rows": num_rows,
            "documents": len(samples),
            "agents": _by_agent(samples),
            "refused": refused,
            "files": tokens.files | masks.files,
        }
        write_json(folder / RESULT, result)
    num_tokens = sum(sample["tokens"] for sample in samples)
    return {"documents": len(samples), "tokens": num_tokens, "dropped": len(refused)}


def _by_agent(samples: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    agents: dict[str, dict[str, int]] = {}
    for sample in samples:
        counts = agents.setdefault(sample["agent"], {"documents": 0, "tokens": 0, "supervised_tokens": 0})
        counts["documents"] += 1
        counts["tokens"] += sample["tokens"]
        counts["supervised_tokens"] += sample["supervised_tokens"]
    return agents


def _documents(
    task: ShardTask, tokenizer: Tokenizer, samples: list[dict[str, Any]], refused: list[dict[str, Any]]
) -> Iterator[Rendered]:
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
            why = {"stage": "render", "reason": drop.reason, "detail": drop.detail, "tokens": drop.num_tokens}
            refused.append(place | why)
        else:
            samples.append(_sample(example, rendered, tokenizer))
            yield rendered


def _render(example: Example, tokenizer: Tokenizer, settings: ConvertSettings) -> Rendered:
    if example.turns:
        rendered = render_conversation(example.turns, tokenizer, settings.template)
    else:
        rendered = render_turns(
            example.user, example.reasoning, example.answer, tokenizer, settings.template, system=example.system
        )
    if (num_tokens := len(rendered.ids)) > settings.max_tokens:
        detail = f"{num_tokens} tokens, the limit is {settings.max_tokens}"
        raise Dropped("over_max_tokens", detail, num_tokens=num_tokens)
    return rendered


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
    """Where each piece of context lies: its heading opens its first token, and tokens are found by their bytes."""
    if not example.context:
        return []
    sizes = [len(f"user\n{INSTRUCTION}\n\n")]
    for number, piece in enumerate(example.context, 1):
        sizes.append(len(f"[Document {number}] \n\n\n") + _num_bytes(piece.title) + _num_bytes(piece.text))
    bounds = 1 + _num_tokens_within(rendered.ids[1 : rendered.num_prompt_tokens], np.cumsum(sizes), tokenizer)
    return [
        {"kind": piece.kind, "title": piece.title, "first_token": first, "tokens": last - first}
        for piece, first, last in zip(example.context, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]


def _num_tokens_within(ids: np.ndarray, sizes_bytes: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """How many of the first tokens fit into each number of bytes, `[sizes]`; block by block, as memory is dear."""
    found, num_bytes = np.zeros(len(sizes_bytes), np.int64), 0
    for start in range(0, len(ids), BLOCK_TOKENS):
        ends = tokenizer.byte_lengths.take(ids[start : start + BLOCK_TOKENS]).cumsum(dtype=np.int64)
        found += np.searchsorted(ends, sizes_bytes - num_bytes, side="right")
        num_bytes += int(ends[-1])
    return found


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(normalize("NFC", text).encode())


def document_sha256(ids: np.ndarray, mask: np.ndarray) -> str:
    """The hash kept for each document: of its int32 ids followed by its uint8 mask."""
    digest = hashlib.sha256(np.ascontiguousarray(ids).data)
    digest.update(np.ascontiguousarray(mask).data)
    return digest.hexdigest()
