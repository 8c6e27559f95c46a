"""Bytes that one rank sends in each kind of collective, and what their links take for them.

Ranks are numbered tensor, context, data, pipeline from the innermost (experts: expert tensor, expert, data, pipeline),
so a group's stride and size say whether it leaves its node.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from acc_megatron.config import Config
from acc_megatron.layout import Layout
from acc_megatron.machines import GPUS_PER_NODE, Machine
from acc_megatron.plan.efficiency import EFFICIENCY
from acc_megatron.plan.memory import MAIN_GRADIENT_BYTES
from acc_megatron.plan.parameters import Parameters
from acc_megatron.plan.shapes import Shapes


@dataclass(frozen=True, slots=True)
class Collective:
    """One kind of collective on one rank; bytes are those it sends. `calls` of `call_bytes` in a step."""

    name: str
    group_size: int
    nodes: int  # that the group spans
    calls: float
    call_bytes: float
    call_seconds: float

    @property
    def step_bytes(self) -> float:
        """Sent in a step."""
        return self.calls * self.call_bytes

    @property
    def step_seconds(self) -> float:
        """Taken in a step if nothing hides it."""
        return self.calls * self.call_seconds


@dataclass(frozen=True, slots=True)
class Group:
    """Where the ranks of a group are: every `stride`-th, `size` of them."""

    size: int
    stride: int

    @property
    def per_node(self) -> int:
        """Members that share a node."""
        return min(self.size, max(1, GPUS_PER_NODE // self.stride))

    @property
    def nodes(self) -> int:
        """Nodes that the group spans."""
        return -(-self.size // self.per_node)

    def ring_seconds(self, num_bytes: float, machine: Machine) -> float:
        """All-gather or reduce-scatter: rings use the adapters of all members of a node."""
        rate = machine.nvlink_bytes_per_second
        if self.nodes > 1:
            rate = min(rate, self.per_node * machine.network_bytes_per_second)
        return num_bytes / (rate * EFFICIENCY.link)

    def neighbour_seconds(self, num_bytes: float, machine: Machine) -> float:
        """To the next rank of the ring: the slowest of them crosses nodes by one adapter."""
        rate = machine.network_bytes_per_second if self.nodes > 1 else machine.nvlink_bytes_per_second
        return num_bytes / (rate * EFFICIENCY.link)

    def all_to_all_seconds(self, num_bytes: float, machine: Machine, *, network_share: float | None = None) -> float:
        """`num_bytes` spread evenly over all ranks, own included; `network_share` is what leaves the node."""
        away = 1 - self.per_node / self.size if network_share is None else network_share
        near = (self.per_node - 1) / self.size
        network = away * num_bytes / machine.network_bytes_per_second
        return max(network, near * num_bytes / machine.nvlink_bytes_per_second) / EFFICIENCY.link


def groups(layout: Layout) -> dict[str, Group]:
    """The groups of every axis."""
    stage = layout.world // layout.pipeline
    experts = layout.expert_tensor * layout.expert
    return {
        "tensor": Group(layout.tensor, 1),
        "context": Group(layout.context, layout.tensor),
        "gradients": Group(layout.data * layout.context, layout.tensor),
        "expert tensor": Group(layout.expert_tensor, 1),
        "expert": Group(layout.expert, layout.expert_tensor),
        "expert gradients": Group(layout.expert_data, experts),
        "pipeline": Group(layout.pipeline, stage),
    }


def collectives(
    config: Config, layout: Layout, shapes: Shapes, parameters: Parameters, machine: Machine
) -> list[Collective]:
    """Every kind of collective of a step on a rank of the last pipeline stage, axes of one rank left out."""
    return [
        *_layer_collectives(config, layout, shapes, machine),
        *_pipeline(config, layout, shapes, machine),
        *_gradients(config, layout, shapes, parameters, machine),
    ]


def passes(config: Config) -> int:
    """Forward passes of a layer that recompute makes of one: 2 with full recompute."""
    return 2 if config.memory.recompute == "full" else 1


def _layer_collectives(config: Config, layout: Layout, s: Shapes, machine: Machine) -> Iterator[Collective]:
    found = groups(layout)
    layers = config.model.num_hidden_layers // layout.pipeline
    microbatches = config.train.global_batch_rows // layout.data
    forward, calls = passes(config), layers * microbatches
    tensor, context, expert = found["tensor"], found["context"], found["expert"]
    if tensor.size > 1:
        size = s.tokens * s.hidden * s.element_bytes * (1 - 1 / tensor.size)
        # a gather and a scatter a pass; backward gathers the input again for the weight's gradient
        count = calls * (2 * forward + 3)
        yield Collective(
            "sequence (TP)",
            tensor.size, tensor.nodes, count, size, tensor.ring_seconds(size, machine),
        )  # fmt: skip
    if context.size > 1:
        pair = 2 * s.tokens * s.keys * s.element_bytes
        name, size = "keys and values (CP)", (context.size - 1) * pair
        seconds = context.neighbour_seconds(size, machine)
        if config.parallel.context_communication.startswith("a2a"):
            size = 2 * s.tokens * (s.queries + s.keys) * s.element_bytes
            name, seconds = "heads for tokens (CP)", context.all_to_all_seconds(size, machine)
        # backward sends keys and values again, and the gradients of both
        yield Collective(name, context.size, context.nodes, calls * (forward + 2), size, seconds)
    # the experts may be made again alone
    if config.memory.recompute == "selective" and "moe" in config.memory.recompute_modules:
        forward = 2
    choices = s.split_tokens * s.experts_per_token * s.hidden * s.element_bytes
    if expert.size > 1:
        size = choices * (1 - 1 / expert.size)
        seconds = expert.all_to_all_seconds(choices, machine, network_share=_network_share(config, s, expert))
        yield Collective(
            "tokens to experts (EP)",
            expert.size, expert.nodes, calls * 2 * (forward + 1), size, seconds,
        )  # fmt: skip
    if layout.expert_tensor > 1:
        group = found["expert tensor"]
        size = choices * (group.size - 1)
        yield Collective(
            "tokens in shards (ETP)",
            group.size, group.nodes, calls * 2 * (forward + 1), size, group.ring_seconds(size, machine),
        )  # fmt: skip


def _network_share(config: Config, s: Shapes, expert: Group) -> float | None:
    """DeepEP and HybridEP send a token once to each node, however many of its experts are there."""
    if config.moe.dispatcher not in ("deepep", "hybridep") or expert.nodes == 1:
        return None
    reached = expert.nodes * (1 - (1 - 1 / expert.nodes) ** s.experts_per_token)
    return reached * (1 - 1 / expert.nodes) / s.experts_per_token


def _pipeline(config: Config, layout: Layout, s: Shapes, machine: Machine) -> Iterator[Collective]:
    group = groups(layout)["pipeline"]
    if group.size > 1:
        microbatches = config.train.global_batch_rows // layout.data
        count = 2 * microbatches * config.parallel.virtual_pipeline
        seconds = group.neighbour_seconds(s.stream_bytes, machine)
        yield Collective("stage to stage (PP)", group.size, group.nodes, count, s.stream_bytes, seconds)


def _gradients(
    config: Config, layout: Layout, s: Shapes, parameters: Parameters, machine: Machine
) -> Iterator[Collective]:
    """Once a step: gradients are scattered in float32 and weights gathered, or gradients are all-reduced."""
    found = groups(layout)
    parts = (("dense", parameters.dense, found["gradients"]), ("expert", parameters.experts, found["expert gradients"]))
    for name, count, group in parts:
        if group.size == 1:
            continue
        share = 1 - 1 / group.size
        gradients, weights = count * MAIN_GRADIENT_BYTES * share, count * s.element_bytes * share
        what = f"{name} grads, weights (DP)"
        size = gradients + weights
        if not config.parallel.distributed_optimizer:
            what, size = f"{name} gradients (DP)", 2 * gradients
        yield Collective(what, group.size, group.nodes, 1, size, group.ring_seconds(size, machine))
