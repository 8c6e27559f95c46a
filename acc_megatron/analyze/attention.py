"""`analyze attention`: the attention distance of each head before and after training, by task."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel

from acc_megatron.analyze.attention_distance import DistanceSums, add_attention
from acc_megatron.analyze.checkpoint_forward import check_comparable, layers, observe, source_of
from acc_megatron.analyze.results_format import AttentionChange, AttentionResult, LayerAttention
from acc_megatron.analyze.task_documents import Slice, Task
from acc_megatron.config import ParallelConfig
from acc_megatron.mesh.context_shard import gathered_order
from acc_megatron.mesh.layout import Layout

TOP_LAYERS = 3  # arXiv 2605.21850, figure 5


@dataclass(frozen=True)
class DistanceRange:
    """The distances of a task: 32 bins cover `span_tokens`, and long-range means `long_range_tokens` or more."""

    span_tokens: int
    long_range_tokens: int


class AttentionObserver:
    """Sums the attention of every layer by task, from the queries and keys that enter the core attention."""

    def __init__(self, layout: Layout, ranges: dict[str, DistanceRange]) -> None:
        self.layout, self.ranges = layout, ranges
        self.sums: dict[tuple[str, int], DistanceSums] = {}

    def attach(self, model: GPTModel) -> None:
        """Hook the core attention of every layer."""
        for number, layer in layers(model):
            attention = layer.self_attention.core_attention
            scale = model.config.softmax_scale or model.config.kv_channels**-0.5
            attention.register_forward_pre_hook(
                lambda _, inputs, number=number, scale=scale: self._add(number, scale, *inputs[:2])
            )

    def document(self, task: str, document: Slice) -> None:
        """The next forward pass is over this document of this task."""
        self.task, self.slice = task, document

    def _add(self, layer: int, scale: float, query_THD: torch.Tensor, key_TGD: torch.Tensor) -> None:
        key_SGD = key_TGD
        if self.layout.context > 1:
            group = parallel_state.get_context_parallel_group()
            parts = [torch.empty_like(key_TGD) for _ in range(self.layout.context)]
            dist.all_gather(parts, key_TGD.contiguous(), group=group)
            key_SGD = torch.cat(parts)[gathered_order((0, self.slice.padded_tokens), self.layout.context)]
        sums = self.sums.setdefault((self.task, layer), DistanceSums.zeros(query_THD.shape[1]))
        real = self.slice.real.to(query_THD.device)
        add_attention(
            sums,
            query_THD[real],
            key_SGD,
            self.slice.positions.to(query_THD.device)[real],
            scale=scale,
            span_tokens=self.ranges[self.task].span_tokens,
            long_range_tokens=self.ranges[self.task].long_range_tokens,
        )

    def result(self) -> dict[str, list[LayerAttention]]:
        """Means by task, layer and head over all ranks; None for long-range values without a long-range pair."""
        found: dict[str, list[LayerAttention]] = {}
        for (task, _), sums in sorted(self.sums.items(), key=lambda item: item[0][1]):
            total = self._total(sums)
            means = total.means()
            found.setdefault(task, []).append(
                {
                    "distance_tokens": means.distance_tokens.tolist(),
                    "histogram": means.histogram.tolist(),
                    "long_range_entropy_nats": means.long_range_entropy_nats.tolist() if total.num_long else None,
                    "long_range_mass": means.long_range_mass.tolist() if total.num_long else None,
                    "num_queries": total.num_queries,
                    "num_long": total.num_long,
                }
            )
        return found

    def _total(self, sums: DistanceSums) -> DistanceSums:
        """The sums over all context-parallel ranks, with the heads of all tensor-parallel ranks."""
        counts = torch.tensor([sums.num_queries, sums.num_long], dtype=torch.float64)
        columns = [sums.distance[:, None], sums.mass, sums.entropy[:, None], sums.long_mass[:, None]]
        values = torch.cat(columns, 1).to(torch.cuda.current_device())
        counts = counts.to(values.device)
        if self.layout.context > 1:
            group = parallel_state.get_context_parallel_group()
            dist.all_reduce(values, group=group)
            dist.all_reduce(counts, group=group)
        if self.layout.tensor > 1:
            group = parallel_state.get_tensor_model_parallel_group()
            parts = [torch.empty_like(values) for _ in range(self.layout.tensor)]
            dist.all_gather(parts, values, group=group)
            values = torch.cat(parts)
        values = values.cpu()
        num_queries, num_long = (int(count) for count in counts.tolist())
        return DistanceSums(values[:, 0], values[:, 1:-2], values[:, -2], values[:, -1], num_queries, num_long)


def analyze_attention(
    checkpoints: dict[str, Path], tasks: list[Task], parallel: ParallelConfig, *, long_range_tokens: int | None
) -> AttentionResult:
    """Attention by checkpoint, task and layer, and the layers whose mean distance changed most.

    The other checkpoints are compared with the first. The change of a layer is the mean over its heads of |change of
    mean distance|, in tokens; figure 5 of arXiv 2605.21850 shows the three most changed layers of a task. A control
    checkpoint shows the change that any training causes. Bins cover a task's longest document; `long_range_tokens` is
    by default a quarter of it. Collective under torchrun.
    """
    check_comparable(checkpoints, tasks)
    ranges = {}
    for task in tasks:
        span_tokens = max(int(task.dataset.lengths[number]) for number in task.documents)
        ranges[task.name] = DistanceRange(span_tokens, long_range_tokens or max(1, span_tokens // 4))

    def make(layout: Layout) -> AttentionObserver:
        return AttentionObserver(layout, ranges)

    found = {name: observe(path, tasks, parallel, make) for name, path in checkpoints.items()}
    first, *others = found
    return {
        "checkpoints": {name: source_of(path) for name, path in checkpoints.items()},
        "tasks": {
            task.name: {
                **task.summary(),
                "span_tokens": ranges[task.name].span_tokens,
                "long_range_tokens": ranges[task.name].long_range_tokens,
            }
            for task in tasks
        },
        "attention": found,
        "changes": {
            other: {task.name: _changes(found[first][task.name], found[other][task.name]) for task in tasks}
            for other in others
        },
    }


def _changes(before: list[LayerAttention], after: list[LayerAttention]) -> AttentionChange:
    by_layer = []
    for old, new in zip(before, after, strict=True):
        heads = list(zip(old["distance_tokens"], new["distance_tokens"], strict=True))
        by_layer.append(sum(abs(a - b) for a, b in heads) / len(heads))
    most = sorted(range(len(by_layer)), key=lambda layer: -by_layer[layer])[:TOP_LAYERS]
    return {"by_layer_tokens": by_layer, "most_changed_layers": most}
