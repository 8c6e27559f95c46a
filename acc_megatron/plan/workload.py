"""What a run reads: the rows of its dataset when there is one, else of documents like ACC's, which is then said."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acc_megatron.config import Config
from acc_megatron.data.balance import efficiency, like_with_like, row_cost_flops
from acc_megatron.data.lengths import NUM_DOCUMENTS, acc_like_lengths
from acc_megatron.data.packing import pack, round_up
from acc_megatron.plan.memory import Row

# the share of ACC's tokens that reasoning and answer are is not published
ASSUMED_SUPERVISED_SHARE = 0.04


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One epoch of packed rows; token counts are means of a row."""

    source: str  # where the lengths come from, in words
    num_rows: int
    num_steps: int  # of the whole run
    row_tokens: int
    document_tokens: float  # of a row's documents, padding left out
    squared_tokens: float  # sum of each document's square
    supervised_tokens: float
    costs: tuple[float, ...]  # forward FLOPs of each row
    fullest: Row  # the row with the most supervised tokens, for the memory of the head

    def balance(self, num_ranks: int, global_batch_rows: int) -> float:
        """Mean work over work waited for, when `num_ranks` rows run side by side, dealt as the loader deals them."""
        order = np.random.default_rng(0).permutation(len(self.costs))
        batches = [order[i : i + global_batch_rows].tolist() for i in range(0, len(order), global_batch_rows)]
        whole = [batch for batch in batches if len(batch) == global_batch_rows]
        if not whole or num_ranks == 1:
            return 1.0
        dealt = [like_with_like(batch, [self.costs[row] for row in batch]) for batch in whole]
        return efficiency([self.costs[row] for batch in dealt for row in batch], num_ranks)


def read_workload(config: Config) -> Workload:
    """The rows that training would make; raises DataError for a damaged dataset or a document that fits no row."""
    path = Path(config.data.path)
    if (path / "manifest.json").is_file():
        from acc_megatron.data_tools.dataset_folder import open_dataset

        samples = open_dataset(path).samples
        lengths = samples["tokens"].to_pylist()
        supervised = samples["supervised_tokens"].to_pylist()
        return _workload(config, lengths, supervised, f"{len(lengths):,} documents of {path}")
    lengths = acc_like_lengths(NUM_DOCUMENTS, config.data.seq_length_tokens, config.train.seed)
    supervised = [max(1, round(length * ASSUMED_SUPERVISED_SHARE)) for length in lengths]
    source = (
        f"assumed: {path} is no dataset, so {NUM_DOCUMENTS:,} documents with lengths like ACC's published quantiles, "
        f"{ASSUMED_SUPERVISED_SHARE:.0%} of their tokens supervised"
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
        squared_tokens=sum(length * length for length in padded) / len(rows),
        supervised_tokens=sum(counts) / len(rows),
        costs=tuple(row_cost_flops(row, config.model) for row in documents),
        fullest=Row(tuple(documents[most]), counts[most]),
    )
