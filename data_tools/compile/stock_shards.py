"""Builds the stock of added distractors: workers read what runs lend, and one process adds it in the input's order."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acc_megatron.common.atomic_files import atomic_folder
from acc_megatron.common.progress import Progress
from acc_megatron.data_tools.compile.distractor_stock import Stock, piece_cost
from acc_megatron.data_tools.compile.output import json_line
from acc_megatron.data_tools.schema import Piece, Trajectory
from acc_megatron.data_tools.sharding.row_ranges import RowRange
from acc_megatron.data_tools.sharding.worker_processes import Runner, ShardCounts
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer

STOCK = "stock.sqlite"
_LENT = "lent.jsonl"


@dataclass(frozen=True, slots=True)
class LentTask:
    """The pieces of one range of rows, to be written into a folder."""

    rows: RowRange
    folder: Path


def lent_by(trajectory: Trajectory, tokenizer: Tokenizer) -> dict[str, Any]:
    """The JSON row of what a run adds to the stock: its evidence, and the pieces it lends with their tokens."""
    return {
        "agent": trajectory.agent,
        "question": trajectory.question,
        "evidence": [piece.id for piece in trajectory.evidence],
        "pieces": [
            {"piece": asdict(piece), "tokens": piece_cost(piece, tokenizer)}
            for piece in AGENT_KINDS[trajectory.agent].lent_pieces(trajectory)
        ],
    }


def write_lent(task: LentTask, runs: Iterable[Trajectory], tokenizer: Tokenizer) -> ShardCounts:
    """Write what the runs of a range lend."""
    num_runs = 0
    with atomic_folder(task.folder) as folder, (folder / _LENT).open("wb") as file:
        for trajectory in runs:
            file.write(json_line(lent_by(trajectory, tokenizer)))
            num_runs += 1
    return {"documents": num_runs, "tokens": 0, "dropped": 0}


def build_stock(
    work: Path,
    tasks: list[LentTask],
    make: Callable[[LentTask], ShardCounts],
    runner: Runner,
    *,
    seed: int,
    agents: list[str],
    resources: Resources,
    tokenizer: Tokenizer,
) -> None:
    """Publish the stock of the work folder. The pieces of a range are deleted when they are in the stock."""
    temporary = work / f"{STOCK}.tmp"
    temporary.unlink(missing_ok=True)
    for task in tasks:  # of a run that was killed
        shutil.rmtree(task.folder, ignore_errors=True)
    stock = Stock(temporary, seed)
    progress = Progress("compile: documents to fill contexts with", len(tasks))
    waiting = iter(tasks)
    following = next(waiting, None)
    for done, counts in enumerate(runner(tasks, make), start=1):
        progress.reach(done)
        progress.add(**counts)
        while following and following.folder.is_dir():
            _add_lent(stock, following.folder)
            following = next(waiting, None)
    assert following is None, "every range was read"
    progress.finish()
    for name in agents:
        stock_shared_pieces(stock, name, resources, tokenizer)
    stock.seal()
    stock.close()
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(work / STOCK)


def _add_lent(stock: Stock, folder: Path) -> None:
    with (folder / _LENT).open("rb") as file:
        for line in file:
            stock_lent(stock, json.loads(line))
    shutil.rmtree(folder)


def stock_lent(stock: Stock, lent: dict[str, Any]) -> None:
    """Add what a run lends; see `lent_by`."""
    stock.note_evidence(lent["question"], lent["evidence"])
    for item in lent["pieces"]:
        stock.add(lent["agent"], Piece(**item["piece"]), item["tokens"])


def stock_shared_pieces(stock: Stock, agent: str, resources: Resources, tokenizer: Tokenizer) -> None:
    """Add the pieces of the resources that can be distractors of any run of an agent kind."""
    for piece in AGENT_KINDS[agent].shared_pieces(resources):
        stock.add(agent, piece, piece_cost(piece, tokenizer))
