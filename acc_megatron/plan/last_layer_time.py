"""Seconds of a step that `loss.last_layer_rows = "supervised"` saves."""

import dataclasses
from dataclasses import dataclass

from acc_megatron.config import Config
from acc_megatron.mesh.layout import Layout
from acc_megatron.plan.communication import forward_passes, groups
from acc_megatron.plan.last_layer import gathered_bytes, row_sizes
from acc_megatron.plan.layer_time import LayerTime, layer_time
from acc_megatron.plan.layer_traffic import projection_bytes
from acc_megatron.plan.rank_sizes import RankSizes
from acc_megatron.plan.speeds import Speeds
from acc_megatron.plan.trained import weight_gradient_share
from acc_megatron.plan.workload import Workload


@dataclass(frozen=True, slots=True)
class Saving:
    """Seconds of a step that the last layer does not take; `gathering` is what it takes more."""

    arithmetic: float = 0.0
    attention: float = 0.0
    memory_traffic: float = 0.0
    recompute: float = 0.0
    experts: float = 0.0
    gathering: float = 0.0  # keys and values of all context-parallel ranks, which nothing overlaps

    @property
    def total(self) -> float:
        """What the last pipeline stage saves."""
        parts = self.arithmetic + self.attention + self.memory_traffic + self.recompute + self.experts
        return parts - self.gathering

    def scaled(self, share: float) -> "Saving":
        """Return a share of each part."""
        return Saving(*(share * part for part in dataclasses.astuple(self)))


def last_layer_saving(
    config: Config,
    layout: Layout,
    sizes: RankSizes,
    workload: Workload,
    speeds: Speeds,
    *,
    layer: LayerTime,
    expert_seconds: float,
    head_seconds: float,
) -> Saving:
    """Return what a step saves; `layer` is the time of the other layers, `expert_seconds` of a layer's exchanges.

    In a pipeline the other stages have whole layers and no head: the step cannot become shorter than theirs, so at
    most the head's seconds are saved.
    """
    if config.loss.last_layer_rows == "all":
        return Saving()
    rows = row_sizes(sizes, workload.supervised_tokens)
    supervised = workload.supervised_tokens / max(1.0, workload.document_tokens)
    attention = supervised * (2 - supervised)  # of the half square of a document, the part of its last rows
    last = layer_time(config, layout, rows, workload, speeds)
    rest = sizes.tokens - rows.tokens
    projection = 2 * rest * sizes.hidden * (sizes.queries + 2 * sizes.keys) / speeds.gemm.at(sizes.tokens)
    traffic = projection_bytes(sizes) * rest / sizes.tokens / speeds.memory_bytes_per_second
    arithmetic = layer.arithmetic - last.arithmetic - projection
    memory = layer.memory - last.memory - traffic
    forward = (1 - attention) * layer.attention
    again = forward_passes(config) - 1
    gather = 0.0
    if layout.context > 1 and sizes.on_gpu:
        num_bytes = gathered_bytes(sizes) * (1 - 1 / layout.context)
        gather = (2 + again) * groups(layout)["context"].ring_seconds(num_bytes, speeds)
    microbatches = config.train.global_batch_rows // layout.data
    saving = Saving(
        arithmetic=(2 + weight_gradient_share(config)) * arithmetic,
        attention=forward + (1 - attention) * layer.attention_backward,
        memory_traffic=3 * memory,
        recompute=again * (arithmetic + forward + memory) + layer.recompute - last.recompute,
        experts=expert_seconds * (1 - rows.tokens / sizes.tokens),
        gathering=gather,
    ).scaled(microbatches)
    if layout.pipeline == 1 or saving.total <= head_seconds:
        return saving
    return saving.scaled(head_seconds / saving.total)
