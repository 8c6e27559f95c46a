"""The documents that an analysis runs a model over: a seeded choice of uncut documents of each task."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from acc_megatron.analyze.results_format import TaskDocuments
from acc_megatron.data.packing import round_up
from acc_megatron.data_tools.convert.dataset_folder import DatasetFolder, open_dataset
from acc_megatron.errors import ConfigError, DataError
from acc_megatron.mesh.context_shard import shard
from acc_megatron.mesh.layout import Layout


@dataclass(frozen=True)
class Task:
    """Some documents of one dataset folder, by number.

    They were drawn from `num_documents`, of which `num_longer` were left out because of their length.
    """

    name: str
    dataset: DatasetFolder
    documents: tuple[int, ...]
    num_longer: int
    num_documents: int

    def summary(self) -> TaskDocuments:
        """The documents that are used, for the result."""
        return {
            "documents": list(self.documents),
            "num_documents": self.num_documents,
            "left_out_for_length": self.num_longer,
        }


@dataclass(frozen=True)
class Slice:
    """One rank's slice of one padded document: `tokens` and `positions` int64 `[tokens]`, `real` bool (not padding)."""

    tokens: torch.Tensor
    positions: torch.Tensor
    real: torch.Tensor
    padded_tokens: int


def open_tasks(
    named: list[str], *, num_documents: int, max_tokens: int, seed: int, by_agent: bool = False
) -> list[Task]:
    """Tasks from NAME=DATASET_DIR; with `by_agent`, a task NAME/AGENT for each agent in it.

    Raises ConfigError for another form or a repeated name, and DataError if no document is short enough.
    """
    tasks: list[Task] = []
    for text in named:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise ConfigError(f"--task {text!r} is not NAME=DATASET_DIR")
        if name in [task.name.partition("/")[0] if by_agent else task.name for task in tasks]:
            raise ConfigError(f"--task {name} is given twice")
        dataset = open_dataset(Path(folder))
        agents = np.array(dataset.samples["agent"].to_pylist())
        parts = {f"{name}/{agent}": agents == agent for agent in sorted(set(agents))} if by_agent else {}
        for part, is_own in (parts or {name: np.full(len(dataset), True)}).items():
            fitting = np.flatnonzero(is_own & (dataset.lengths <= max_tokens))
            if not len(fitting):
                shortest = dataset.lengths[is_own].min()
                raise DataError(
                    f"{folder}: no document{f' of {part}' if by_agent else ''} of at most {max_tokens} tokens, the "
                    f"shortest has {shortest}; raise --max-tokens"
                )
            chosen = np.random.default_rng(seed).permutation(fitting)[:num_documents]
            num_own = int(is_own.sum())
            tasks.append(Task(part, dataset, tuple(int(n) for n in chosen), num_own - len(fitting), num_own))
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
