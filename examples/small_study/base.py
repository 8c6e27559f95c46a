"""The base's curriculum: from few pages to many, every road of a context asked for, so that the loss is dense.

Its rows are triples, which `acc-megatron convert` takes as they are. The reasoning repeats all roads in an order of its
own: one look-up a road, where a compiled run has one to three in the same context. No path is ever followed here.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from road import RECIPE, acc, publish_rows
from settings import Stage
from world import EVERY_ROAD, draw_world, road_text


def draw_base_triple(rng: random.Random, num_pages: int, number: int) -> dict[str, Any]:
    """One context of `num_pages` pages with every road of it in another order."""
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


def train_base(out: Path, tokenizer: Path, stages: tuple[Stage, ...]) -> Path:
    """Run the curriculum, each stage from the weights of the one before; the run folder of the last."""
    previous: list[str] = []
    for stage in stages:
        folder = out / stage.name
        rows = folder / "rows" / "base.jsonl"
        if not rows.is_file():
            publish_rows(rows, _rows(stage))
        acc(folder / "convert.json", "convert", rows, "--out", folder / "dataset", "--tokenizer", tokenizer)
        overrides = [
            f"data.path={folder / 'dataset'}",
            f"train.run_dir={folder / 'run'}",
            f"optimizer.learning_rate={stage.learning_rate}",
            f"optimizer.min_learning_rate={stage.end_learning_rate}",
        ]
        acc(folder / "train.json", "train", RECIPE, *overrides, *previous)
        previous = [f"train.init_from={folder / 'run'}"]
    return folder / "run"


def _rows(stage: Stage) -> Iterator[dict[str, Any]]:
    """Triples of a stage until its tokens are reached: nine a page, three a road listed, and the frame."""
    rng = random.Random(f"base {stage.name}")
    num_tokens = number = 0
    while num_tokens < stage.num_tokens:
        num_pages = rng.randint(stage.min_pages, stage.max_pages)
        yield draw_base_triple(rng, num_pages, number)
        num_tokens += 12 * num_pages + 18
        number += 1
