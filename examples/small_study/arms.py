"""The arms: the same runs under another treatment of `compile`, cut to as many tokens, trained from the base.

What is matched is the number of tokens that the model reads: the same steps, each one row of ROW_TOKENS, over the same
runs. An arm with longer documents reads fewer of these runs, one whose documents are too short to fill the tokens reads
them for several epochs. Supervised tokens differ, and are reported.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from road import RECIPE, acc, publish_rows
from settings import ARMS, HOPS, ROW_TOKENS, Settings
from trajectories import draw_run


def train_arm(out: Path, arm: str, seed: int, base: Path, tokenizer: Path, settings: Settings) -> dict[str, Any]:
    """One arm of one seed, from runs of the agent to an exported model; what it was trained on."""
    tokens = settings.arm_steps * ROW_TOKENS
    runs = out / "runs" / "search.jsonl"
    if not runs.is_file():
        publish_rows(runs, _runs(seed, tokens, settings))
    triples, cut = out / "triples", out / "cut" / "search.jsonl"
    same = ("--tokenizer", tokenizer)
    compiled = acc(out / "compile.json", "compile", runs, "--out", triples, "--seed", str(seed), *ARMS[arm], *same)
    epochs = -(-tokens // compiled["tokens"])
    if not cut.is_file():
        publish_rows(cut, _first_tokens(triples / "triples.jsonl", tokens // epochs))
    converted = acc(out / "convert.json", "convert", cut, "--out", out / "dataset", *same)
    overrides = [
        f"data.path={out / 'dataset'}",
        f"train.run_dir={out / 'run'}",
        f"train.init_from={base}",
        f"train.seed={seed}",
        f"train.epochs={epochs}",
        f"train.max_steps={settings.arm_steps}",
        f"optimizer.learning_rate={settings.arm_learning_rate}",
        f"optimizer.min_learning_rate={settings.arm_learning_rate / 10}",
    ]
    trained = acc(out / "train.json", "train", RECIPE, *overrides)
    acc(out / "export.json", "export", out / "run", "--out", out / "export", *same)
    read = {"documents": converted["documents_out"], "epochs": epochs} | read_tokens(out / "run")
    return {"arm": arm, "seed": seed} | read | trained


def read_tokens(run: Path) -> dict[str, int]:
    """The tokens that a run has read and learned, row by row."""
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    return {name: sum(step[name] for step in steps) for name in ("tokens", "supervised_tokens")}


def _runs(seed: int, num_tokens: int, settings: Settings) -> Iterator[dict[str, Any]]:
    """The runs of a seed, the same for every arm: they fill the tokens at nine a page alone, so ACC has some over."""
    rng = random.Random(f"runs {seed}")
    for _ in range(num_tokens // (9 * sum(settings.arm_pages) // 2)):
        yield draw_run(rng, rng.randint(*settings.arm_pages), rng.choice(HOPS))


def _first_tokens(triples: Path, num_tokens: int) -> Iterator[dict[str, Any]]:
    """The first documents that fit in so many tokens."""
    for line in triples.read_text().splitlines():
        row = json.loads(line)
        num_tokens -= row["settings"]["tokens"]
        if num_tokens < 0:
            return
        yield row
