"""The documents that an analysis runs a model over: a few of each task, whole, in a seeded choice."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acc_megatron.data.context_shard import shard
from acc_megatron.data.packing import round_up
from acc_megatron.data_tools.dataset_folder import DatasetFolder, open_dataset
from acc_megatron.errors import ConfigError, DataError
from acc_megatron.layout import Layout


@dataclass(frozen=True)
class Task:
    """Some documents of one dataset folder, by number; `num_longer` were left out for their length."""

    name: str
    dataset: DatasetFolder
    documents: tuple[int, ...]
    num_longer: int

    def told(self) -> dict[str, Any]:
        """Which documents were looked at, for the result."""
        return {
            "documents": list(self.documents),
            "num_documents": len(self.dataset),
            "left_out_for_length": self.num_longer,
        }


@dataclass(frozen=True)
class Slice:
    """One rank's slice of one padded document: `tokens` and `positions` int64 `[tokens]`, `real` bool, no padding."""

    tokens: torch.Tensor
    positions: torch.Tensor
    real: torch.Tensor
    padded_tokens: int


def open_tasks(named: list[str], *, num_documents: int, max_tokens: int, seed: int) -> list[Task]:
    """Tasks from NAME=DATASET_DIR; raises ConfigError for another form, DataError where no document is short enough."""
    tasks: list[Task] = []
    for text in named:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise ConfigError(f"--task {text!r} is not NAME=DATASET_DIR")
        if name in [task.name for task in tasks]:
            raise ConfigError(f"--task {name} is given twice")
        dataset = open_dataset(Path(folder))
        fitting = np.flatnonzero(dataset.lengths <= max_tokens)
        if not len(fitting):
            shortest = dataset.lengths.min()
            raise DataError(f"{folder}: no document of at most {max_tokens} tokens; the shortest has {shortest}")
        chosen = np.random.default_rng(seed).permutation(fitting)[:num_documents]
        tasks.append(Task(name, dataset, tuple(int(n) for n in chosen), len(dataset) - len(fitting)))
    if not tasks:
        raise ConfigError("give at least one --task NAME=DATASET_DIR")
    return tasks


def document_slice(task: Task, number: int, layout: Layout, context_rank: int) -> Slice:
    """A document padded to the layout's multiple, and this rank's zig-zag slice of it."""
    ids, _ = task.dataset.document(number)
    padded = round_up(len(ids), 2 * layout.context * layout.tensor)
    tokens = np.full(padded, int(task.dataset.manifest["tokenizer"]["pad_id"]), np.int64)
    tokens[: len(ids)] = ids
    positions = torch.arange(padded)
    mine = [shard(x, (0, padded), layout.context, context_rank) for x in (torch.from_numpy(tokens), positions)]
    return Slice(mine[0], mine[1], mine[1] < len(ids), padded)
