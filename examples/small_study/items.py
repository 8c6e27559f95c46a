"""Held-out questions of the same family, at fixed lengths, and the same questions without their context.

They come off the product's own road, `compile` and `convert`, from runs that no arm has read: so a prompt is rendered
exactly as the ACC arm's documents are, and the tokens after it are the full answer.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from road import acc, publish_rows
from settings import HOPS, Settings
from trajectories import draw_run


def make_items(out: Path, tokenizer: Path, settings: Settings) -> None:
    """Write `out`/with_context and `out`/without_context, dataset folders, and `out`/triples."""
    runs = out / "runs" / "search.jsonl"
    if not runs.is_file():
        publish_rows(runs, _held_out(settings))
    same = ("--tokenizer", tokenizer)
    acc(out / "compile.json", "compile", runs, "--out", out / "triples", "--seed", "1000003", *same)
    acc(out / "with_context.json", "convert", out / "triples", "--out", out / "with_context", *same)
    bare = out / "bare" / "search.jsonl"
    if not bare.is_file():
        publish_rows(bare, (row | {"context": []} for row in read_rows(out / "triples" / "triples.jsonl")))
    acc(out / "without_context.json", "convert", bare, "--out", out / "without_context", *same)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _held_out(settings: Settings) -> Iterator[dict[str, Any]]:
    rng = random.Random("held out")
    for num_pages in settings.lengths_pages:
        for num_hops in HOPS:
            for _ in range(settings.items_per_cell):
                yield draw_run(rng, num_pages, num_hops)
