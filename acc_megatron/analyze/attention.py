"""`analyze attention`: how far each head looks, before and after training, by task."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel

from acc_megatron.analyze.distance import DistanceSums, add_attention
from acc_megatron.analyze.forward import check_comparable, layers, observe, trained
from acc_megatron.analyze.tasks import Slice, Task
from acc_megatron.config import ParallelConfig
from acc_megatron.data.context_shard import gathered_order
from acc_megatron.layout import Layout

TOP_LAYERS = 3  # arXiv 2605.21850, figure 5


@dataclass(frozen=True)
class Reach:
    """How far a task's documents reach: the bins share out `span_tokens`, far is `long_range_tokens` or more."""

    span_tokens: int
    long_range_tokens: int


class AttentionObserver:
    """Sums of every layer's attention, by task; sees queries and keys as they enter the core attention."""

    def __init__(self, layout: Layout, reaches: dict[str, Reach]) -> None:
        self.layout, self.reaches = layout, reaches
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
            span_tokens=self.reaches[self.task].span_tokens,
            long_range_tokens=self.reaches[self.task].long_range_tokens,
        )

    def result(self) -> dict[str, list[dict[str, Any]]]:
        """Means by task, layer and head, of all heads over all slices; null where no pair is at long range."""
        found: dict[str, list[dict[str, Any]]] = {}
        for (task, _), sums in sorted(self.sums.items(), key=lambda item: item[0][1]):
            whole = self._whole(sums)
            means: dict[str, Any] = {name: value.tolist() for name, value in whole.means().items()}
            if not whole.num_long:
                means |= {"long_range_entropy_nats": None, "long_range_mass": None}
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

    `checkpoints` are named, the first is what others are held against. A layer's change is the mean over its heads of
    |change of mean distance|, in tokens; figure 5 of arXiv 2605.21850 shows the three most changed layers of a task,
    and a control tells their change from what any training does. Bins span a task's longest document, and long
    range is a quarter of it unless given. Collective under torchrun.
    """
    check_comparable(checkpoints, tasks)
    reaches = {}
    for task in tasks:
        span_tokens = max(int(task.dataset.lengths[number]) for number in task.documents)
        reaches[task.name] = Reach(span_tokens, long_range_tokens or max(1, span_tokens // 4))

    def make(layout: Layout) -> AttentionObserver:
        return AttentionObserver(layout, reaches)

    found = {name: observe(path, tasks, parallel, make) for name, path in checkpoints.items()}
    first, *others = found
    return {
        "checkpoints": {name: trained(path) for name, path in checkpoints.items()},
        "tasks": {task.name: task.told() | asdict(reaches[task.name]) for task in tasks},
        "attention": found,
        "changes": {
            other: {task.name: _changes(found[first][task.name], found[other][task.name]) for task in tasks}
            for other in others
        },
    }


def _changes(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    by_layer = []
    for old, new in zip(before, after, strict=True):
        heads = list(zip(old["distance_tokens"], new["distance_tokens"], strict=True))
        by_layer.append(sum(abs(a - b) for a, b in heads) / len(heads))
    most = sorted(range(len(by_layer)), key=lambda layer: -by_layer[layer])[:TOP_LAYERS]
    return {"by_layer_tokens": by_layer, "most_changed_layers": most}
