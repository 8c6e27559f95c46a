"""The small study from one command: tokenizer, base, arms, held-out items, scores, table and figure."""

import argparse
import itertools
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from arms import train_arm
from base import train_base
from figure import draw
from items import make_items
from road import acc, command, publish
from settings import FULL, SMOKE, Settings
from summary import measures, over_seeds
from table import tables
from tokenizer import write_tokenizer


def main() -> None:
    """Run the grid, or what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the study; a stopped run goes on in it")
    parser.add_argument("--smoke", action="store_true", help="the whole road at a size that learns nothing")
    parser.add_argument("--jobs", type=int, default=2, help="arms trained at once, each on one core (default 2)")
    arguments = parser.parse_args()
    settings = SMOKE if arguments.smoke else FULL
    out = arguments.out
    tokenizer = out / "tokenizer"
    if not (tokenizer / "tokenizer.json").is_file():
        write_tokenizer(tokenizer)
    make_items(out / "items", tokenizer, settings)
    base = train_base(out / "base", tokenizer, settings.stages)
    acc(out / "base" / "export.json", "export", base, "--out", out / "base" / "export", "--tokenizer", tokenizer)
    trained = train_arms(out, base, tokenizer, settings, arguments.jobs)
    scores = score_all(out, tokenizer, [f"{row['arm']}/seed{row['seed']}" for row in trained])
    by_model = {name: measures(rows) for name, rows in scores.items()}
    summary = {"base": over_seeds([by_model["base"]])}
    for arm in settings.arms:
        summary[arm] = over_seeds([by_model[f"{arm}/seed{seed}"] for seed in settings.seeds])
    publish(out / "results.json", json.dumps({"trained": trained, "models": by_model, "summary": summary}, indent=1))
    text = tables(summary, trained, settings.lengths_pages)
    publish(out / "tables.md", text)
    draw(summary, settings.lengths_pages, settings.arm_pages, out / "figure.svg")
    print(text)


def train_arms(out: Path, base: Path, tokenizer: Path, settings: Settings, num_jobs: int) -> list[dict[str, Any]]:
    """Every arm of every seed, seed by seed, `num_jobs` at once."""

    def one(cell: tuple[int, str]) -> dict[str, Any]:
        seed, arm = cell
        return train_arm(out / "arms" / arm / f"seed{seed}", arm, seed, base, tokenizer, settings)

    with ThreadPoolExecutor(num_jobs) as pool:
        return list(pool.map(one, itertools.product(settings.seeds, settings.arms)))


def score_all(out: Path, tokenizer: Path, names: list[str]) -> dict[str, Any]:
    """The scores of the base and of every arm, by name."""
    folders = {"base": out / "base"} | {name: out / "arms" / name for name in names}
    script = str(Path(__file__).with_name("evaluate.py"))
    pairs = [f"{folder / 'export'}={folder / 'scores.json'}" for folder in folders.values()]
    options = ["--items", str(out / "items"), "--tokenizer", str(tokenizer)]
    command(out / "evaluate.json", [sys.executable, script, *options, *pairs])
    return {name: json.loads((folder / "scores.json").read_bytes()) for name, folder in folders.items()}


if __name__ == "__main__":
    main()
