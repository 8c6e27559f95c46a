"""`analyze attention`: how far each head looks, before and after training, by task."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel

from acc_megatron.analyze.distance import DistanceSums, add_attention
from acc_megatron.analyze.forward import layers, observe
from acc_megatron.analyze.tasks import Slice, Task
from acc_megatron.config import ParallelConfig
from acc_megatron.data.context_shard import gathered_order
from acc_megatron.layout import Layout


class AttentionObserver:
    """Sums of every layer's attention, by task; sees queries and keys as they enter the core attention."""

    def __init__(self, layout: Layout, *, span_tokens: int, long_range_tokens: int) -> None:
        self.layout = layout
        self.span_tokens, self.long_range_tokens = span_tokens, long_range_tokens
        self.sums: dict[tuple[str, int], DistanceSums] = {}

    def attach(self, model: GPTModel) -> None:
        """Hook the core attention of every layer."""
        for number, layer in layers(model):
            attention = layer.self_attention.core_attention
            scale = model.config.kv_channels**-0.5
            attention.register_forward_pre_hook(
                lambda _, inputs, number=number, scale=scale: self._look(number, scale, *inputs[:2])
            )

    def document(self, task: str, document: Slice) -> None:
        """Remember whose queries come next."""
        self.task, self.slice = task, document

    def _look(self, layer: int, scale: float, query_THD: torch.Tensor, key_TGD: torch.Tensor) -> None:
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
            span_tokens=self.span_tokens,
            long_range_tokens=self.long_range_tokens,
        )

    def result(self) -> dict[str, list[dict[str, Any]]]:
        """Means by task, layer and head, of all heads over all slices."""
        found: dict[str, list[dict[str, Any]]] = {}
        for (task, _), sums in sorted(self.sums.items(), key=lambda item: item[0][1]):
            whole = self._whole(sums)
            means = {name: value.tolist() for name, value in whole.means().items()}
            found.setdefault(task, []).append(means | {"num_queries": whole.num_queries, "num_long": whole.num_long})
        return found

    def _whole(self, sums: DistanceSums) -> DistanceSums:
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
) -> dict[str, Any]:
    """Attention by checkpoint, task and layer, and the layers whose mean distance changed most.

    `checkpoints` are named, the first is what others are held against. Long range is a quarter of the longest
    document unless given. Collective under torchrun.
    """
    span_tokens = max(int(task.dataset.lengths[number]) for task in tasks for number in task.documents)
    far = long_range_tokens or max(1, span_tokens // 4)

    def make(layout: Layout) -> AttentionObserver:
        return AttentionObserver(layout, span_tokens=span_tokens, long_range_tokens=far)

    found = {name: observe(path, tasks, parallel, make) for name, path in checkpoints.items()}
    first, *others = found
    return {
        "checkpoints": {name: str(path) for name, path in checkpoints.items()},
        "tasks": {task.name: task.told() for task in tasks},
        "span_tokens": span_tokens,
        "long_range_tokens": far,
        "attention": found,
        "most_changed_layers": {
            other: {task.name: _most_changed(found[first][task.name], found[other][task.name]) for task in tasks}
            for other in others
        },
    }


def _most_changed(before: list[dict[str, Any]], after: list[dict[str, Any]], num_layers: int = 3) -> list[int]:
    """Layers by the mean over heads of |change of mean distance|, the largest first (figure 5 shows three)."""
    changes = []
    for old, new in zip(before, after, strict=True):
        heads = zip(old["distance_tokens"], new["distance_tokens"], strict=True)
        changes.append(sum(abs(a - b) for a, b in heads))
    return sorted(range(len(changes)), key=lambda layer: -changes[layer])[:num_layers]
