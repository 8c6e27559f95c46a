"""Held-out questions at fixed lengths, with and without their context.

They are made by `compile` and `convert` from trajectories that no arm has read. So a prompt is rendered exactly like
the documents of the `acc` arm, and the tokens after it are the complete answer.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import acc, publish_rows
from settings import HOPS, Settings
from trajectories import draw_trajectory


def make_questions(out: Path, tokenizer: Path, settings: Settings) -> None:
    """Write the triples to `out`/triples and the datasets to `out`/with_context and `out`/without_context."""
    trajectories = out / "trajectories" / "search.jsonl"
    if not trajectories.is_file():
        publish_rows(trajectories, _held_out(settings))
    options = ("--tokenizer", tokenizer)
    acc(out / "compile.json", "compile", trajectories, "--out", out / "triples", "--seed", "1000003", *options)
    acc(out / "with_context.json", "convert", out / "triples", "--out", out / "with_context", *options)
    bare = out / "bare" / "search.jsonl"
    if not bare.is_file():
        publish_rows(bare, (row | {"context": []} for row in read_rows(out / "triples" / "triples.jsonl")))
    acc(out / "without_context.json", "convert", bare, "--out", out / "without_context", *options)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _held_out(settings: Settings) -> Iterator[dict[str, Any]]:
    rng = random.Random("held out")
    for num_pages in settings.lengths_pages:
        for num_hops in HOPS:
            for _ in range(settings.questions_per_cell):
                yield draw_trajectory(rng, num_pages, num_hops)
