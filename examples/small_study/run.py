"""The small study from one command: tokenizer, base, arms, held-out items, scores, table and figure."""

import argparse
import itertools
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
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
    _claim(out, settings)
    tokenizer = out / "tokenizer"
    if not (tokenizer / "tokenizer.json").is_file():
        write_tokenizer(tokenizer)
    make_items(out / "items", tokenizer, settings)
    base = train_base(out / "base", tokenizer, settings.stages)
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


def _claim(out: Path, settings: Settings) -> None:
    """Write a folder's settings into it, or refuse one with parts of another grid, which would be taken as done."""
    path, told = out / "settings.json", json.dumps(asdict(settings), indent=1)
    if path.is_file() and path.read_text(encoding="utf-8") != told:
        sys.exit(f"error: {out} holds a study of other settings, see {path}; give another --out")
    if not path.is_file():
        publish(path, told)


def train_arms(out: Path, base: Path, tokenizer: Path, settings: Settings, num_jobs: int) -> list[dict[str, Any]]:
    """Every arm of every seed, seed by seed, `num_jobs` at once."""

    def one(cell: tuple[int, str]) -> dict[str, Any]:
        seed, arm = cell
        return train_arm(out / "arms" / arm / f"seed{seed}", arm, seed, base, tokenizer, settings)

    with ThreadPoolExecutor(num_jobs) as pool:
        return list(pool.map(one, itertools.product(settings.seeds, settings.arms)))


def score_all(out: Path, tokenizer: Path, names: list[str], num_jobs: int) -> dict[str, Any]:
    """The scores of the base and of every arm, by name; `num_jobs` processes share the models."""
    folders = {"base": out / "base"} | {name: out / "arms" / name for name in names}
    words = [sys.executable, str(Path(__file__).with_name("evaluate.py")), "--items", str(out / "items")]
    words += ["--tokenizer", str(tokenizer)]
    waiting = [folder for folder in folders.values() if not (folder / "scores.json").is_file()]

    def one(share: list[Path]) -> None:
        command(share[0] / "evaluate.json", [*words, *(f"{own / 'export'}={own / 'scores.json'}" for own in share)])

    with ThreadPoolExecutor(num_jobs) as pool:
        list(pool.map(one, [waiting[first::num_jobs] for first in range(min(num_jobs, len(waiting)))]))
    return {name: json.loads((folder / "scores.json").read_bytes()) for name, folder in folders.items()}


if __name__ == "__main__":
    main()
