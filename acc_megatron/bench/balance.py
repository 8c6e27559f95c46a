"""`bench step --balance`: how evenly a global batch keeps ranks busy, for document lengths like those of ACC."""

import numpy as np

from acc_megatron.config import Config
from acc_megatron.data.balance import costliest_first, efficiency, row_cost_flops, wait_lower_bound
from acc_megatron.data.document_lengths import NUM_DOCUMENTS, acc_like_lengths
from acc_megatron.data.packing import pack, round_up
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout


def balance(config: Config, layout: Layout, *, seed: int = 0) -> dict[str, float | str]:
    """Efficiency of our order of packed rows and of a random order, over the same global batches of the recipe.

    Experts are spread over all data-parallel ranks, so every microbatch waits for its slowest rank. The efficiency is
    the mean work of a rank divided by the work of the slowest rank, from a model of FLOPs. `efficiency_bound` is an
    upper bound for any packing of the same documents in the same batches: with few packed rows, ranks wait for a
    document that fills a row. Raises ConfigError if the batch cannot be divided among the ranks.
    """
    data_parallel, global_batch_rows = layout.data, config.train.global_batch_rows
    if global_batch_rows % data_parallel:
        raise ConfigError(
            f"train.global_batch_rows {global_batch_rows} is not a multiple of the {data_parallel} data-parallel ranks "
            f"of {layout.world} GPUs: change --gpus, or the batch with train.global_batch_rows=N"
        )
    seq_length, multiple = config.data.seq_length_tokens, config.data.document_multiple_tokens
    lengths = [round_up(length, multiple) for length in acc_like_lengths(NUM_DOCUMENTS, seq_length, seed)]
    rows = pack(lengths, seq_length)
    costs = [row_cost_flops([lengths[i] for i in row], config.model) for row in rows]
    order = np.random.default_rng(seed).permutation(len(costs))
    batches = [order[i : i + global_batch_rows].tolist() for i in range(0, len(order), global_batch_rows)]
    full_batches = [batch for batch in batches if len(batch) == global_batch_rows]
    ours = [costliest_first(batch, [costs[row] for row in batch]) for batch in full_batches]
    work = {length: row_cost_flops([length], config.model) for length in set(lengths)}
    documents = [[(lengths[i], work[lengths[i]]) for row in batch for i in rows[row]] for batch in full_batches]
    waits = [wait_lower_bound(batch, seq_length, global_batch_rows, data_parallel) for batch in documents]
    return {
        "efficiency": _efficiency(ours, costs, data_parallel),
        "random_efficiency": _efficiency(full_batches, costs, data_parallel),
        "efficiency_bound": sum(costs[row] for batch in full_batches for row in batch) / data_parallel / sum(waits),
        "layout": str(layout),
        "global_batch_rows": global_batch_rows,
        "rows": len(costs),
        "density": sum(lengths) / (len(costs) * seq_length),
    }


def _efficiency(batches: list[list[int]], costs: list[float], data_parallel: int) -> float:
    return efficiency([costs[row] for batch in batches for row in batch], data_parallel)
