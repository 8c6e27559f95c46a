"""Trains the base model in phases from few pages to many; every road of a context is asked for, so the loss is dense.

The rows are triples, which `acc-megatron convert` reads directly. The reasoning repeats all roads in random order: one
look-up per road, while a compiled trajectory has one to three look-ups per context. No path is followed here.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import RECIPE, acc, publish_rows
from settings import Phase
from world import EVERY_ROAD, draw_world, road_text


def draw_base_triple(rng: random.Random, num_pages: int, number: int) -> dict[str, Any]:
    """A context of `num_pages` pages, with all of its roads in another order as the reasoning."""
    world = draw_world(rng, num_pages)
    pieces = []
    for town, page in world.page_of.items():
        text = f"{page}\n\n{road_text(town, world.roads[town])}"
        pieces.append({"id": str(page), "title": str(page), "text": text, "kind": "evidence"})
    towns = rng.sample(sorted(world.roads), num_pages)
    return {
        "id": f"base-{number:06d}",
        "question": EVERY_ROAD,
        "context": pieces,
        "reasoning": "\n".join(road_text(town, world.roads[town]) for town in towns),
        "answer": "all",
    }


def train_base(out: Path, tokenizer: Path, phases: tuple[Phase, ...]) -> Path:
    """Train every phase from the weights of the previous one; return the run folder of the last."""
    init_from: list[str] = []
    for phase in phases:
        folder = out / phase.name
        rows = folder / "rows" / "base.jsonl"
        if not rows.is_file():
            publish_rows(rows, _rows(phase))
        acc(folder / "convert.json", "convert", rows, "--out", folder / "dataset", "--tokenizer", tokenizer)
        overrides = [
            f"data.path={folder / 'dataset'}",
            f"train.run_dir={folder / 'run'}",
            f"optimizer.learning_rate={phase.learning_rate}",
            f"optimizer.min_learning_rate={phase.end_learning_rate}",
        ]
        acc(folder / "train.json", "train", RECIPE, *overrides, *init_from)
        init_from = [f"train.init_from={folder / 'run'}"]
    return folder / "run"


def _rows(phase: Phase) -> Iterator[dict[str, Any]]:
    """Triples until the tokens of the phase are reached: 9 per page, 3 per road in the reasoning, 18 for the rest."""
    rng = random.Random(f"base {phase.name}")
    num_tokens = number = 0
    while num_tokens < phase.num_tokens:
        num_pages = rng.randint(phase.min_pages, phase.max_pages)
        yield draw_base_triple(rng, num_pages, number)
        num_tokens += 12 * num_pages + 18
        number += 1
