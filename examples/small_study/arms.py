"""Trains the arms: the same trajectories, compiled in different ways, cut to the same number of tokens.

All arms read the same number of tokens: the same number of steps, each with one packed row of ROW_TOKENS, from the same
trajectories. An arm with longer documents reads fewer of them. An arm whose documents do not fill the tokens reads them
for several epochs. The number of supervised tokens differs and is reported.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import RECIPE, acc, publish_rows
from settings import ARMS, HOPS, ROW_TOKENS, Settings
from trajectories import draw_trajectory


def train_arm(out: Path, arm: str, seed: int, base: Path, tokenizer: Path, settings: Settings) -> dict[str, Any]:
    """Make one arm with one seed, from trajectories to an exported model; return what it was trained on."""
    tokens = settings.arm_steps * ROW_TOKENS
    trajectories = out / "trajectories" / "search.jsonl"
    if not trajectories.is_file():
        publish_rows(trajectories, _trajectories(seed, tokens, settings))
    triples, cut = out / "triples", out / "cut" / "search.jsonl"
    options = ("--tokenizer", tokenizer)
    compiled = acc(
        out / "compile.json", "compile", trajectories, "--out", triples, "--seed", str(seed), *ARMS[arm], *options
    )
    epochs = -(-tokens // compiled["tokens"])
    if not cut.is_file():
        publish_rows(cut, _first_tokens(triples / "triples.jsonl", tokens // epochs))
    converted = acc(out / "convert.json", "convert", cut, "--out", out / "dataset", *options)
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
    acc(out / "export.json", "export", out / "run", "--out", out / "export", *options)
    read = {"documents": converted["documents_out"], "epochs": epochs} | count_tokens(out / "run")
    return {"arm": arm, "seed": seed} | read | trained


def count_tokens(run: Path) -> dict[str, int]:
    """The number of tokens and of supervised tokens that a training run has read; a repeated step counts once."""
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    last = {step["step"]: step for step in steps}.values()
    return {name: sum(step[name] for step in last) for name in ("tokens", "supervised_tokens")}


def _trajectories(seed: int, num_tokens: int, settings: Settings) -> Iterator[dict[str, Any]]:
    """The trajectories of a seed, equal for all arms; their pages, with 9 tokens each, fill `num_tokens`."""
    rng = random.Random(f"runs {seed}")
    for _ in range(num_tokens // (9 * sum(settings.arm_pages) // 2)):
        yield draw_trajectory(rng, rng.randint(*settings.arm_pages), rng.choice(HOPS))


def _first_tokens(triples: Path, num_tokens: int) -> Iterator[dict[str, Any]]:
    """The first documents that together have at most `num_tokens` tokens."""
    for line in triples.read_text().splitlines():
        row = json.loads(line)
        num_tokens -= row["settings"]["tokens"]
        if num_tokens < 0:
            return
        yield row
