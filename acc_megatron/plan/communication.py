"""Bytes that one rank sends in each kind of collective, and the seconds that its links need for them.

Ranks are numbered along the axes tensor, context, data, pipeline, innermost first (for experts: expert tensor, expert,
data, pipeline), so the stride and the size of a group determine how many nodes it spans.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from acc_megatron.config import Config
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.gpu_specs import GPUS_PER_NODE
from acc_megatron.mesh.layout import Layout
from acc_megatron.plan.assumed_efficiency import EFFICIENCY
from acc_megatron.plan.optimizer_bytes import gradient_bytes
from acc_megatron.plan.parameters import Parameters
from acc_megatron.plan.rank_sizes import RankSizes
from acc_megatron.plan.speeds import LinkKind, Speeds


@dataclass(frozen=True, slots=True)
class Collective:
    """One kind of collective on one rank, which sends `call_bytes` in each of the `calls` of a step."""

    name: str
    group_size: int
    axis: str  # TP, CP, EP, ETP, PP or DP
    num_nodes: int  # spanned by the group
    calls: float
    call_bytes: float
    call_seconds: float

    @property
    def step_bytes(self) -> float:
        """Bytes sent in a step."""
        return self.calls * self.call_bytes

    @property
    def step_seconds(self) -> float:
        """Seconds in a step if nothing overlaps."""
        return self.calls * self.call_seconds


@dataclass(frozen=True, slots=True)
class Group:
    """A process group: `size` ranks, `stride` apart."""

    size: int
    stride: int

    @property
    def ranks_per_node(self) -> int:
        """Ranks of the group on one node."""
        return min(self.size, max(1, GPUS_PER_NODE // self.stride))

    @property
    def num_nodes(self) -> int:
        """Nodes that the group spans."""
        return -(-self.size // self.ranks_per_node)

    def ring_seconds(self, num_bytes: float, speeds: Speeds) -> float:
        """Seconds of an all-gather or reduce-scatter; its rings use the adapters of all ranks of a node."""
        measured = self._measured("ring", num_bytes, speeds)
        if measured is not None:
            return measured
        rate = speeds.machine.nvlink_bytes_per_second
        if self.num_nodes > 1:
            rate = min(rate, self.ranks_per_node * speeds.machine.network_bytes_per_second)
        return num_bytes / (rate * EFFICIENCY.link)

    def neighbour_seconds(self, num_bytes: float, speeds: Speeds) -> float:
        """Seconds of a send to the next rank of a ring; between nodes it uses one adapter."""
        measured = self._measured("neighbour", num_bytes, speeds)
        if measured is not None:
            return measured
        machine = speeds.machine
        rate = machine.network_bytes_per_second if self.num_nodes > 1 else machine.nvlink_bytes_per_second
        return num_bytes / (rate * EFFICIENCY.link)

    def all_to_all_seconds(self, num_bytes: float, speeds: Speeds, *, network_share: float | None = None) -> float:
        """Seconds of an all-to-all of `num_bytes`, including the part that stays on the rank.

        `network_share` is the share that leaves the node; by default `num_bytes` is spread evenly over the ranks.
        """
        measured = self._measured("all_to_all", num_bytes, speeds)
        if measured is not None:
            return measured
        machine = speeds.machine
        remote = 1 - self.ranks_per_node / self.size if network_share is None else network_share
        local = (self.ranks_per_node - 1) / self.size
        network = remote * num_bytes / machine.network_bytes_per_second
        return max(network, local * num_bytes / machine.nvlink_bytes_per_second) / EFFICIENCY.link

    def _measured(self, kind: LinkKind, num_bytes: float, speeds: Speeds) -> float | None:
        """Seconds by the machine file, or None where the data sheet of the machine is to be used."""
        link = speeds.link(kind, self.size, self.num_nodes)
        if link is None and not speeds.machine.nvlink_bytes_per_second:
            raise ConfigError(
                f"the speeds of {speeds.machine.name} ({speeds.source}) have no {kind} collective of {self.size} ranks "
                f"on {self.num_nodes} nodes: measure it with torchrun --nproc-per-node {self.size} -m acc_megatron "
                "calibrate --out FILE"
            )
        return link.seconds(num_bytes) if link else None


def groups(layout: Layout) -> dict[str, Group]:
    """The process groups, by what they exchange."""
    ranks_per_stage = layout.world // layout.pipeline
    experts = layout.expert_tensor * layout.expert
    return {
        "tensor": Group(layout.tensor, 1),
        "context": Group(layout.context, layout.tensor),
        "gradients": Group(layout.data * layout.context, layout.tensor),
        "expert tensor": Group(layout.expert_tensor, 1),
        "expert": Group(layout.expert, layout.expert_tensor),
        "expert gradients": Group(layout.expert_data, experts),
        "pipeline": Group(layout.pipeline, ranks_per_stage),
    }


def collectives(
    config: Config, layout: Layout, sizes: RankSizes, parameters: Parameters, speeds: Speeds
) -> list[Collective]:
    """Every kind of collective in a step on a rank of the last pipeline stage; axes of size 1 have none."""
    return [
        *_layer_collectives(config, layout, sizes, speeds),
        *_pipeline(config, layout, sizes, speeds),
        *_gradients(config, layout, sizes, parameters, speeds),
    ]


def forward_passes(config: Config) -> int:
    """Forward passes of a layer per backward pass: 2 with full recompute, otherwise 1."""
    return 2 if config.memory.recompute == "full" else 1


def _layer_collectives(config: Config, layout: Layout, s: RankSizes, speeds: Speeds) -> Iterator[Collective]:
    found = groups(layout)
    layers = config.model.num_hidden_layers // layout.pipeline
    microbatches = config.train.global_batch_rows // layout.data
    forward, calls = forward_passes(config), layers * microbatches
    tensor, context, expert = found["tensor"], found["context"], found["expert"]
    if tensor.size > 1:
        size = s.tokens * s.hidden * s.element_bytes * (1 - 1 / tensor.size)
        # a gather and a scatter in each pass; backward gathers the input again for the weight's gradient
        count = calls * (2 * forward + 3)
        yield Collective(
            "sequence (TP)",
            tensor.size, "TP", tensor.num_nodes, count, size, tensor.ring_seconds(size, speeds),
        )  # fmt: skip
    if context.size > 1:
        pair = 2 * s.tokens * s.keys * s.element_bytes
        name, size = "keys and values (CP)", (context.size - 1) * pair
        seconds = context.neighbour_seconds(size, speeds)
        if config.parallel.context_communication.startswith("a2a"):
            size = 2 * s.tokens * (s.queries + s.keys) * s.element_bytes
            name, seconds = "heads for tokens (CP)", context.all_to_all_seconds(size, speeds)
        # backward sends keys and values again, and their gradients
        yield Collective(name, context.size, "CP", context.num_nodes, calls * (forward + 2), size, seconds)
    # selective recompute may repeat only the experts
    if config.memory.recompute == "selective" and "moe" in config.memory.recompute_modules:
        forward = 2
    choices = s.split_tokens * s.experts_per_token * s.hidden * s.element_bytes
    if expert.size > 1:
        size = choices * (1 - 1 / expert.size)
        seconds = expert.all_to_all_seconds(choices, speeds, network_share=_network_share(config, s, expert))
        yield Collective(
            "tokens to experts (EP)",
            expert.size, "EP", expert.num_nodes, calls * 2 * (forward + 1), size, seconds,
        )  # fmt: skip
    if layout.expert_tensor > 1:
        group = found["expert tensor"]
        size = choices * (group.size - 1)
        yield Collective(
            "tokens of expert TP (ETP)",
            group.size, "ETP", group.num_nodes, calls * 2 * (forward + 1), size, group.ring_seconds(size, speeds),
        )  # fmt: skip


def _network_share(config: Config, s: RankSizes, expert: Group) -> float | None:
    """DeepEP and HybridEP send a token to each node once, even if several of its experts are there."""
    if config.moe.dispatcher not in ("deepep", "hybridep") or expert.num_nodes == 1:
        return None
    reached = expert.num_nodes * (1 - (1 - 1 / expert.num_nodes) ** s.experts_per_token)
    return reached * (1 - 1 / expert.num_nodes) / s.experts_per_token


def _pipeline(config: Config, layout: Layout, s: RankSizes, speeds: Speeds) -> Iterator[Collective]:
    group = groups(layout)["pipeline"]
    if group.size > 1:
        microbatches = config.train.global_batch_rows // layout.data
        count = 2 * microbatches * config.parallel.virtual_pipeline
        seconds = group.neighbour_seconds(s.stream_bytes, speeds)
        yield Collective("stage to stage (PP)", group.size, "PP", group.num_nodes, count, s.stream_bytes, seconds)


def _gradients(
    config: Config, layout: Layout, s: RankSizes, parameters: Parameters, speeds: Speeds
) -> Iterator[Collective]:
    """Once per step: reduce-scatter of gradients and all-gather of weights, or all-reduce of gradients."""
    found = groups(layout)
    parts = (("dense", parameters.dense, found["gradients"]), ("expert", parameters.experts, found["expert gradients"]))
    for name, count, group in parts:
        if group.size == 1:
            continue
        share = 1 - 1 / group.size
        gradients, weights = count * gradient_bytes(config) * share, count * s.element_bytes * share
        label = f"{name} grads, weights (DP)"
        size = gradients + weights
        if not config.parallel.distributed_optimizer:
            label, size = f"{name} gradients (DP)", 2 * gradients
        yield Collective(label, group.size, "DP", group.num_nodes, 1, size, group.ring_seconds(size, speeds))
