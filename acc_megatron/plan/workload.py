"""The packed rows that a run trains on: those of its dataset, or without one of documents with assumed lengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from acc_megatron.config import Config
from acc_megatron.data.balance import costliest_first, efficiency, row_cost_flops
from acc_megatron.data.document_lengths import NUM_DOCUMENTS, acc_like_lengths
from acc_megatron.data.packing import pack, round_up
from acc_megatron.plan.memory import RowContents

# the share of ACC's tokens in reasoning and answer is not published
ASSUMED_SUPERVISED_SHARE = 0.04


@dataclass(frozen=True, slots=True)
class LengthClass:
    """Documents of similar length."""

    tokens: float  # root of the mean square
    squared_tokens: float  # their sum in a row


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One epoch of packed rows; token counts are means over the rows."""

    source: str  # where the lengths come from, in words
    num_rows: int
    num_steps: int  # of the whole run
    row_tokens: int
    document_tokens: float  # without the padding at the end of rows
    lengths: tuple[LengthClass, ...]
    supervised_tokens: float
    costs: tuple[float, ...]  # forward FLOPs of each row
    fullest: RowContents  # the row with the most supervised tokens, for the memory of the head

    @property
    def squared_tokens(self) -> float:
        """Sum of the squared document lengths of a row."""
        return sum(item.squared_tokens for item in self.lengths)

    def balance(self, num_ranks: int, global_batch_rows: int) -> float:
        """Mean work over the slowest rank's work, for `num_ranks` ranks with one row each, in the loader's order."""
        return _balance(self.costs, num_ranks, global_batch_rows)


@cache
def _balance(costs: tuple[float, ...], num_ranks: int, global_batch_rows: int) -> float:
    """Kept, because a search asks for the same few numbers of ranks thousands of times."""
    order = np.random.default_rng(0).permutation(len(costs))
    batches = [order[i : i + global_batch_rows].tolist() for i in range(0, len(order), global_batch_rows)]
    full = [batch for batch in batches if len(batch) == global_batch_rows]
    if not full or num_ranks == 1:
        return 1.0
    ordered = [costliest_first(batch, [costs[row] for row in batch]) for batch in full]
    return efficiency([costs[row] for batch in ordered for row in batch], num_ranks)


def read_workload(config: Config) -> Workload:
    """Pack the documents as training does; raises DataError for a damaged dataset or a document longer than a row."""
    path = Path(config.data.path)
    if (path / "manifest.json").is_file():
        from acc_megatron.data_tools.convert.dataset_folder import open_dataset

        samples = open_dataset(path).samples
        lengths = samples["tokens"].to_pylist()
        supervised = samples["supervised_tokens"].to_pylist()
        return _workload(config, lengths, supervised, f"{len(lengths):,} documents of {path}")
    lengths = acc_like_lengths(NUM_DOCUMENTS, config.data.seq_length_tokens, config.train.seed)
    supervised = [max(1, round(length * ASSUMED_SUPERVISED_SHARE)) for length in lengths]
    source = (
        f"assumed, because {path} is not a dataset: {NUM_DOCUMENTS:,} documents whose lengths match ACC's published "
        f"quantiles, {ASSUMED_SUPERVISED_SHARE:.0%} of their tokens supervised"
    )
    return _workload(config, lengths, supervised, source)


def _workload(config: Config, lengths: Sequence[int], supervised: Sequence[int], source: str) -> Workload:
    data, train = config.data, config.train
    padded = [round_up(length, data.document_multiple_tokens) for length in lengths]
    rows = pack(padded, data.seq_length_tokens)
    documents = [[padded[document] for document in row] for row in rows]
    counts = [sum(supervised[document] for document in row) for row in rows]
    most = max(range(len(rows)), key=counts.__getitem__)
    return Workload(
        source=source,
        num_rows=len(rows),
        num_steps=-(-train.epochs * len(rows) // train.global_batch_rows),
        row_tokens=data.seq_length_tokens,
        document_tokens=sum(padded) / len(rows),
        lengths=length_classes(padded, len(rows)),
        supervised_tokens=sum(counts) / len(rows),
        costs=tuple(row_cost_flops(row, config.model) for row in documents),
        fullest=RowContents(tuple(documents[most]), counts[most]),
    )


def length_classes(lengths_tokens: Sequence[int], num_rows: int) -> tuple[LengthClass, ...]:
    """Group documents by the power of two that their length reaches; the sum of squares is exact."""
    classes: dict[int, list[int]] = {}
    for length in lengths_tokens:
        classes.setdefault(length.bit_length(), []).append(length * length)
    return tuple(
        LengthClass((sum(squares) / len(squares)) ** 0.5, sum(squares) / num_rows)
        for _, squares in sorted(classes.items())
    )
