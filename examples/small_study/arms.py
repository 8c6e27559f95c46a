"""The arms: the same runs under another treatment of `compile`, cut to as many tokens, trained from the base.

What is matched is the number of tokens that the model reads: the same steps, each one row of ROW_TOKENS. An arm with
shorter documents therefore reads more runs of the same stream. Supervised tokens differ, and are reported.
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
    flags, tokens = ARMS[arm], settings.arm_steps * ROW_TOKENS
    runs = out / "runs" / "search.jsonl"
    if not runs.is_file():
        publish_rows(runs, _runs(seed, _num_runs(flags, tokens, settings), settings))
    triples, cut = out / "triples", out / "cut" / "search.jsonl"
    same = ("--tokenizer", tokenizer)
    acc(out / "compile.json", "compile", runs, "--out", triples, "--seed", str(seed), *flags, *same)
    if not cut.is_file():
        publish_rows(cut, _first_tokens(triples / "triples.jsonl", tokens))
    converted = acc(out / "convert.json", "convert", cut, "--out", out / "dataset", *same)
    overrides = [
        f"data.path={out / 'dataset'}",
        f"train.run_dir={out / 'run'}",
        f"train.init_from={base}",
        f"train.seed={seed}",
        f"train.max_steps={settings.arm_steps}",
        f"optimizer.learning_rate={settings.arm_learning_rate}",
        f"optimizer.min_learning_rate={settings.arm_learning_rate / 10}",
    ]
    trained = acc(out / "train.json", "train", RECIPE, *overrides)
    acc(out / "export.json", "export", out / "run", "--out", out / "export", *same)
    return {"arm": arm, "seed": seed, "documents": converted["documents_out"], **read_tokens(out / "run"), **trained}


def read_tokens(run: Path) -> dict[str, int]:
    """The tokens that a run has read and learned, row by row."""
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    return {name: sum(step[name] for step in steps) for name in ("tokens", "supervised_tokens")}


def _runs(seed: int, num_runs: int, settings: Settings) -> Iterator[dict[str, Any]]:
    """The stream of a seed; every arm reads a part of it from its start."""
    rng = random.Random(f"runs {seed}")
    for _ in range(num_runs):
        yield draw_run(rng, rng.randint(*settings.arm_pages), rng.choice(HOPS))


def _num_runs(flags: tuple[str, ...], tokens: int, settings: Settings) -> int:
    """Runs that fill the tokens: a page has nine, a document without distractors some 44 in all (32, 44 or 56)."""
    mean = 40 if "--no-distractors" in flags else 9 * sum(settings.arm_pages) // 2
    return tokens // mean + 40


def _first_tokens(triples: Path, num_tokens: int) -> Iterator[dict[str, Any]]:
    """The first documents that fit in so many tokens."""
    for line in triples.read_text().splitlines():
        row = json.loads(line)
        num_tokens -= row["settings"]["tokens"]
        if num_tokens < 0:
            return
        yield row
    raise SystemExit(f"{triples} holds fewer tokens than asked for: {num_tokens} are missing")
