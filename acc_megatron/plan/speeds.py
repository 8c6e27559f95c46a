"""The speeds that the time model uses: measured by `acc-megatron calibrate`, or assumed shares of a data sheet."""

from dataclasses import dataclass
from typing import Literal

from acc_megatron.mesh.gpu_specs import Machine, find_machine
from acc_megatron.plan.assumed_efficiency import EFFICIENCY
from acc_megatron.plan.curve import Curve, constant

LinkKind = Literal["ring", "neighbour", "all_to_all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A kind of collective in a group of `num_ranks` ranks on `num_nodes` nodes, as measured."""

    kind: LinkKind
    num_ranks: int
    num_nodes: int
    latency_seconds: float
    bytes_per_second: float  # of the bytes that one rank sends; for all_to_all including its own part

    def seconds(self, num_bytes: float) -> float:
        """Seconds of one call."""
        return self.latency_seconds + num_bytes / self.bytes_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """The speeds of one device of a machine, and of its links to the others."""

    machine: Machine
    on_gpu: bool = True
    gemm: Curve  # FLOP/s, by tokens
    expert_gemm: Curve  # FLOP/s, by tokens of one expert
    attention_forward: Curve  # FLOP/s, by tokens of a document
    attention_backward: Curve
    memory_bytes_per_second: float
    permutation_bytes_per_second: float
    update_bytes_per_second: float  # of the optimizer
    host_seconds_per_layer: float
    links: tuple[Link, ...] = ()
    source: str = ""  # where measured figures come from: file, date, machine and versions

    @property
    def is_measured(self) -> bool:
        """Whether the speeds of this device were measured; links may still be assumed."""
        return bool(self.source)

    def link(self, kind: LinkKind, num_ranks: int, num_nodes: int) -> Link | None:
        """The measured link of a group, or None."""
        found = (
            link for link in self.links if (link.kind, link.num_ranks, link.num_nodes) == (kind, num_ranks, num_nodes)
        )
        return next(found, None)


def assumed_speeds(machine: Machine) -> Speeds:
    """Speeds of a machine at the assumed shares of its data sheet."""
    share, peak = EFFICIENCY, machine.flops_per_second
    memory = machine.memory_bytes_per_second * share.memory
    return Speeds(
        machine=machine,
        gemm=constant(peak * share.dense_gemm),
        expert_gemm=constant(peak * share.expert_gemm),
        attention_forward=share.attention_forward.times(peak),
        attention_backward=share.attention_backward.times(peak),
        memory_bytes_per_second=memory,
        permutation_bytes_per_second=memory,
        update_bytes_per_second=memory,
        host_seconds_per_layer=share.host_seconds_per_layer,
    )


def find_speeds(name: str) -> Speeds:
    """Assumed speeds of a machine by name; raises ConfigError with the known names."""
    return assumed_speeds(find_machine(name))
