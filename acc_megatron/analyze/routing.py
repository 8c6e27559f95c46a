"""`analyze routing`: the experts that each task uses, what training changed, and how tasks differ."""

from itertools import combinations
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel

from acc_megatron.analyze.checkpoint_forward import check_comparable, layers, observe, source_of
from acc_megatron.analyze.results_format import ExpertChange, LayerRouting, RoutingChange, RoutingResult
from acc_megatron.analyze.task_documents import Slice, Task
from acc_megatron.checkpoint import locate
from acc_megatron.config import ParallelConfig
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout

TOP_EXPERTS = 20  # arXiv 2605.21850, figure 5
TOP_LAYERS = 3


class RoutingObserver:
    """Counts the tokens of every expert by task and layer, without padding."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.counts: dict[tuple[str, int], torch.Tensor] = {}

    def attach(self, model: GPTModel) -> None:
        """Hook the router of every layer."""
        for number, layer in layers(model):
            layer.mlp.router.register_forward_hook(lambda _, __, output, number=number: self._count(number, output[1]))

    def document(self, task: str, document: Slice) -> None:
        """The next forward pass is over this document; each sequence-parallel rank routes a part of its slice."""
        self.task, self.real = task, document.real
        if self.layout.tensor > 1:
            rank = parallel_state.get_tensor_model_parallel_rank()
            self.real = document.real.chunk(self.layout.tensor)[rank]

    def _count(self, layer: int, routing_map: torch.Tensor) -> None:
        """Add a `routing_map`, bool `[tokens, experts]`."""
        counts = routing_map[self.real.to(routing_map.device)].sum(0, dtype=torch.float64)
        self.counts[self.task, layer] = self.counts.get((self.task, layer), 0) + counts

    def result(self) -> dict[str, list[LayerRouting]]:
        """Each expert's share of the routed tokens, by task and layer."""
        found: dict[str, list[LayerRouting]] = {}
        for (task, _), counts in sorted(self.counts.items(), key=lambda item: item[0][1]):
            if self.layout.tensor * self.layout.context > 1:
                dist.all_reduce(counts, group=parallel_state.get_tensor_and_context_parallel_group())
            total = float(counts.sum())
            found.setdefault(task, []).append({"frequency": (counts / total).tolist(), "routed_tokens": int(total)})
        return found


def divergence(p: list[float], q: list[float]) -> float:
    """Jensen-Shannon divergence of two distributions in bits (Lin 1991): 0 for equal ones, 1 for disjoint ones.

    H((p + q) / 2) - (H(p) + H(q)) / 2 with H the entropy in bits.
    """
    a, b = torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64)
    middle = (a + b) / 2
    both = sum((torch.special.xlogy(x, x) - torch.special.xlogy(x, middle)).sum() for x in (a, b)) / 2
    return max(0.0, float(both) / 0.6931471805599453)


def change(p: list[float], q: list[float]) -> float:
    """Total variation, sum |p - q| / 2: the smallest share of routed tokens that went to another expert."""
    return sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2


def analyze_routing(checkpoints: dict[str, Path], tasks: list[Task], parallel: ParallelConfig) -> RoutingResult:
    """Expert frequencies by checkpoint, task and layer, changes from the first checkpoint, and divergence of tasks.

    A frequency is an expert's share of a layer's routed tokens, k for each real token; figure 5 of arXiv 2605.21850
    shows the three most changed layers and 20 experts. A control checkpoint, trained on as many tokens of other data,
    shows the change that any training causes. Collective under torchrun.
    """
    check_comparable(checkpoints, tasks)
    for name, path in checkpoints.items():
        if not locate.read_state(locate.find(path))["model"].get("num_experts"):
            raise ConfigError(f"{name} is {path}, a dense model: it has no router to analyze")
    found = {name: observe(path, tasks, parallel, RoutingObserver) for name, path in checkpoints.items()}
    first, *others = found
    return {
        "checkpoints": {name: source_of(path) for name, path in checkpoints.items()},
        "tasks": {task.name: task.summary() for task in tasks},
        "routing": found,
        "changes": {
            other: {task.name: _changes(found[first][task.name], found[other][task.name]) for task in tasks}
            for other in others
        },
        "task_divergence_bits": {name: _between_tasks(found[name], [task.name for task in tasks]) for name in found},
    }


def _changes(before: list[LayerRouting], after: list[LayerRouting]) -> RoutingChange:
    by_layer = [change(old["frequency"], new["frequency"]) for old, new in zip(before, after, strict=True)]
    top_layers = sorted(range(len(by_layer)), key=lambda layer: -by_layer[layer])[:TOP_LAYERS]
    experts: dict[int, list[ExpertChange]] = {}
    for layer in top_layers:
        old, new = before[layer]["frequency"], after[layer]["frequency"]
        order = sorted(range(len(old)), key=lambda expert: -abs(new[expert] - old[expert]))[:TOP_EXPERTS]
        experts[layer] = [{"expert": expert, "before": old[expert], "after": new[expert]} for expert in order]
    return {"by_layer": by_layer, "most_changed_layers": top_layers, "most_changed_experts": experts}


def _between_tasks(found: dict[str, list[LayerRouting]], names: list[str]) -> dict[str, list[float]]:
    """The divergence of each layer's expert frequencies, by pair of tasks."""
    by_pair = {}
    for one, other in combinations(names, 2):
        by_layer = zip(found[one], found[other], strict=True)
        by_pair[f"{one} / {other}"] = [divergence(a["frequency"], b["frequency"]) for a, b in by_layer]
    return by_pair
