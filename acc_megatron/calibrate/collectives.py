"""Collectives between the processes of torchrun, in a group of every size that divides their number."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch.distributed as dist

from acc_megatron.calibrate.measurement import Sample
from acc_megatron.calibrate.shapes import Shapes
from acc_megatron.plan.communication import Group
from acc_megatron.plan.machine_file import MeasuredSpeeds
from acc_megatron.plan.speeds import Link, LinkKind


@dataclass(frozen=True, slots=True)
class _Case:
    """One collective in one group at one size."""

    kind: LinkKind
    group: Group
    num_elements: int  # of the buffer on a rank

    @property
    def name(self) -> str:
        return f"{self.kind} {self.group.size} {self.group.stride} {self.num_elements}"

    def sent_bytes(self, element_bytes: int) -> float:
        """Bytes of one call as the plan counts them."""
        share = 1 - 1 / self.group.size if self.kind == "ring" else 1
        # a ring is measured as an all-gather and a reduce-scatter
        return self.num_elements * element_bytes * share * (2 if self.kind == "ring" else 1)


class Collectives:
    """All-gather with reduce-scatter, a send to the next rank, and all-to-all."""

    name = "collectives"

    def samples(self, shapes: Shapes) -> Sequence[Sample]:
        """Two sizes of each collective in each group."""
        own: dict[Group, dist.ProcessGroup] = {}
        for group in _groups(dist.get_world_size()):
            for ranks in _members(group, dist.get_world_size()):
                made = dist.new_group(ranks)
                if dist.get_rank() in ranks:
                    own[group] = made
        return [Sample(case.name, _call(case, shapes, own[case.group])) for case in _cases(shapes)]

    def speeds(self, shapes: Shapes, seconds: Mapping[str, float], found: MeasuredSpeeds) -> None:
        """Enter latency and bytes per second of each collective, from its two sizes."""
        cases = list(_cases(shapes))
        for small, large in zip(cases[::2], cases[1::2], strict=True):
            first, last = seconds[small.name], seconds[large.name]
            sent = [case.sent_bytes(shapes.element_bytes) for case in (small, large)]
            # where noise makes the larger call the faster one, its time has no part that does not grow
            rate = (sent[1] - sent[0]) / (last - first) if last > first else sent[1] / last
            latency = max(0.0, first - sent[0] / rate)
            calls = 2 if large.kind == "ring" else 1
            found.links.append(
                Link(
                    kind=large.kind,
                    num_ranks=large.group.size,
                    num_nodes=large.group.num_nodes,
                    latency_seconds=latency / calls,
                    bytes_per_second=rate,
                )
            )


def _groups(world: int) -> list[Group]:
    """Groups of each size, one for each number of nodes that it can span."""
    found: dict[tuple[int, int], Group] = {}
    for size in range(2, world + 1):
        for stride in range(1, world // size + 1):
            if world % (size * stride) == 0:
                group = Group(size, stride)
                found.setdefault((size, group.num_nodes), group)
    return list(found.values())


def _members(group: Group, world: int) -> Iterator[list[int]]:
    block = group.size * group.stride
    for start in range(0, world, block):
        for offset in range(group.stride):
            yield list(range(start + offset, start + block, group.stride))


def _cases(shapes: Shapes) -> Iterator[_Case]:
    world = dist.get_world_size()
    sizes = [tokens * shapes.hidden // world * world for tokens in (shapes.tokens[0], shapes.tokens[-1])]
    kinds: tuple[LinkKind, ...] = ("ring", "neighbour", "all_to_all")
    for group in _groups(world):
        for kind in kinds:
            for size in sizes:
                yield _Case(kind, group, size)


def _call(case: _Case, shapes: Shapes, group: dist.ProcessGroup) -> Callable[[], object]:
    whole, other = shapes.random(case.num_elements), shapes.random(case.num_elements)
    part = whole[: case.num_elements // case.group.size].clone()
    rank, size = dist.get_rank(group), case.group.size
    following, previous = (dist.get_global_rank(group, (rank + step) % size) for step in (1, -1))

    def ring() -> None:
        dist.all_gather_into_tensor(whole, part, group=group)
        dist.reduce_scatter_tensor(part, other, group=group)

    def neighbour() -> None:
        sends = [dist.P2POp(dist.isend, whole, following, group), dist.P2POp(dist.irecv, other, previous, group)]
        for work in dist.batch_isend_irecv(sends):
            work.wait()

    def all_to_all() -> None:
        dist.all_to_all_single(other, whole, group=group)

    calls: dict[LinkKind, Callable[[], object]] = {"ring": ring, "neighbour": neighbour, "all_to_all": all_to_all}
    return calls[case.kind]
