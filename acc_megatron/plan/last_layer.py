"""What a last layer saves for its backward pass with `loss.last_layer_rows = "supervised"`.

Norm, projection of queries, keys and values, and the rotary embedding of the layer work for all tokens; attention, its
output, experts or MLP for the supervised ones, which the context-parallel ranks share evenly.
"""

import dataclasses
from collections.abc import Sequence

from acc_megatron.config import Config
from acc_megatron.plan.activations import LayerMemory, SavedTensor, layer_memory, layer_tensors
from acc_megatron.plan.rank_sizes import RankSizes
from acc_megatron.plan.trained import without_frozen

# what attention saves for all tokens, by the start of its name
FOR_ALL_TOKENS = ("input norm", "queries, keys, values", "head norms", "rotary")


def row_sizes(sizes: RankSizes, num_rows: float) -> RankSizes:
    """Return the sizes of a rank's share of `num_rows` rows of a packed row."""
    share = num_rows / sizes.row_tokens
    return dataclasses.replace(
        sizes,
        tokens=round(sizes.tokens * share),
        split_tokens=round(sizes.split_tokens * share),
        expert_tokens=sizes.expert_tokens * share,
    )


def last_layer_memory(config: Config, sizes: RankSizes, documents_tokens: Sequence[int], num_rows: int) -> LayerMemory:
    """Return what the last layer saves, recomputes and offloads if it computes `num_rows` rows of a packed row."""
    rows = row_sizes(sizes, num_rows)
    aux_loss = config.moe.load_balancing != "none"
    whole = layer_tensors(sizes, documents_tokens, aux_loss=aux_loss)
    part = layer_tensors(rows, documents_tokens, aux_loss=aux_loss)
    tensors = [_of_rows(sizes, rows, *pair) for pair in zip(whole, part, strict=True)]
    if sizes.context > 1 and sizes.on_gpu:
        tensors.append(SavedTensor("gathered keys and values", gathered_bytes(sizes), "attention"))
    memory = layer_memory(without_frozen(config, tensors, rows), rows, config.memory)
    if config.memory.recompute == "full":  # its input has all tokens
        return dataclasses.replace(
            memory, saved_bytes=memory.saved_bytes + 2 * (sizes.stream_bytes - rows.stream_bytes)
        )
    return memory


def _of_rows(sizes: RankSizes, rows: RankSizes, whole: SavedTensor, part: SavedTensor) -> SavedTensor:
    """Choose between a tensor of all tokens and the same of the rows."""
    if whole.part == "attention" and whole.name.startswith(FOR_ALL_TOKENS):
        return whole
    if whole.name == "rotated queries and keys":
        keys = (sizes.tokens - rows.tokens) * sizes.keys * sizes.element_bytes
        return dataclasses.replace(part, num_bytes=part.num_bytes + keys)
    return part


def gathered_bytes(sizes: RankSizes) -> int:
    """Bytes of the keys and values of a packed row."""
    return 2 * sizes.row_tokens * sizes.keys * sizes.element_bytes
