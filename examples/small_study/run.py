"""Runs the small study: tokenizer, base model, arms, held-out questions, scores, tables and figure."""

import argparse
import itertools
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arms import train_arm
from base_model import train_base
from figure import draw
from pipeline import acc, publish, run_once
from questions import make_questions
from settings import FULL, SMOKE, Settings
from summary import measures, over_seeds
from table import tables
from tokenizer import write_tokenizer


def main() -> None:
    """Run the grid; parts that are already done are not repeated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the study; an interrupted run resumes in it")
    parser.add_argument("--smoke", action="store_true", help="run every step at a tiny size; the models learn nothing")
    parser.add_argument("--jobs", type=int, default=2, help="arms trained at the same time, one core each (default 2)")
    arguments = parser.parse_args()
    settings = SMOKE if arguments.smoke else FULL
    out = arguments.out
    _check_settings(out, settings)
    tokenizer = out / "tokenizer"
    if not (tokenizer / "tokenizer.json").is_file():
        write_tokenizer(tokenizer)
    make_questions(out / "questions", tokenizer, settings)
    base = train_base(out / "base", tokenizer, settings.phases)
    acc(out / "base" / "export.json", "export", base, "--out", out / "base" / "export", "--tokenizer", tokenizer)
    trained = train_arms(out, base, tokenizer, settings, arguments.jobs)
    scores = score_all(out, tokenizer, [f"{row['arm']}/seed{row['seed']}" for row in trained], arguments.jobs)
    by_model = {name: measures(rows) for name, rows in scores.items()}
    summary = {"base": over_seeds([by_model["base"]])}
    for arm in settings.arms:
        summary[arm] = over_seeds([by_model[f"{arm}/seed{seed}"] for seed in settings.seeds])
    publish(out / "results.json", json.dumps({"trained": trained, "models": by_model, "summary": summary}, indent=1))
    text = tables(summary, trained, settings.lengths_pages)
    publish(out / "tables.md", text)
    draw(summary, settings.lengths_pages, settings.arm_pages, out / "figure.svg")
    print(text)


def _check_settings(out: Path, settings: Settings) -> None:
    """Store the settings in a new folder; exit if the folder has results of other settings, which would be reused."""
    path, text = out / "settings.json", json.dumps(asdict(settings), indent=1)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        sys.exit(f"error: {out} contains a study with other settings, see {path}; choose another --out")
    if not path.is_file():
        publish(path, text)


def train_arms(out: Path, base: Path, tokenizer: Path, settings: Settings, num_jobs: int) -> list[dict[str, Any]]:
    """Train every arm with every seed, `num_jobs` at a time."""

    def train(cell: tuple[int, str]) -> dict[str, Any]:
        seed, arm = cell
        return train_arm(out / "arms" / arm / f"seed{seed}", arm, seed, base, tokenizer, settings)

    with ThreadPoolExecutor(num_jobs) as pool:
        return list(pool.map(train, itertools.product(settings.seeds, settings.arms)))


def score_all(out: Path, tokenizer: Path, names: list[str], num_jobs: int) -> dict[str, Any]:
    """The scores of the base and of every arm, by name; the models are divided among `num_jobs` processes."""
    folders = {"base": out / "base"} | {name: out / "arms" / name for name in names}
    command = [sys.executable, str(Path(__file__).with_name("evaluate.py")), "--questions", str(out / "questions")]
    command += ["--tokenizer", str(tokenizer)]
    missing = [folder for folder in folders.values() if not (folder / "scores.json").is_file()]

    def score(part: list[Path]) -> None:
        models = [f"{folder / 'export'}={folder / 'scores.json'}" for folder in part]
        run_once(part[0] / "evaluate.json", [*command, *models])

    with ThreadPoolExecutor(num_jobs) as pool:
        list(pool.map(score, [missing[first::num_jobs] for first in range(min(num_jobs, len(missing)))]))
    return {name: json.loads((folder / "scores.json").read_bytes()) for name, folder in folders.items()}


if __name__ == "__main__":
    main()
