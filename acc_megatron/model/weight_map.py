"""How Megatron's parameters relate to Hugging Face's tensors, and which part of each tensor a rank has."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from acc_megatron.mesh.layout import Layout, Ranks


@dataclass(frozen=True, slots=True)
class Split:
    """The dim along which a Hugging Face tensor is split, and the mesh axis over which."""

    dim: int
    axis: Literal["tensor", "expert_tensor"]  # a field of both Layout and Ranks


@dataclass(frozen=True, slots=True)
class Entry:
    """One Megatron parameter: its Hugging Face tensors, how they are split over ranks, joined and separated.

    `join` converts complete tensors to the complete parameter, and a rank's parts of the tensors to that rank's
    parameter. `separate` is its inverse.
    """

    hf_names: tuple[str, ...]
    split: Split | None = None
    join: Callable[..., torch.Tensor] = lambda tensor: tensor
    separate: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] = lambda tensor: (tensor,)


@dataclass(frozen=True, slots=True)
class FusedPlace:
    """Where an expert's tensor is stored in a folder that has one tensor for all experts of a layer."""

    name: str
    expert: int
    first_row: int


class WeightMap(Protocol):
    """The weights of one model; names on the Hugging Face side are one tensor per expert."""

    def entry(self, name: str, *, first_layer: int = 0, first_expert: int = 0) -> Entry:
        """Return the entry of a parameter by its Megatron name on one rank.

        `first_layer` and `first_expert` are the global numbers of that rank's first layer and first expert.
        """

    def parameter_names(self) -> Iterator[str]:
        """Yield the Megatron name of every parameter in a process that has the complete model."""

    def shapes(self, *, is_fused: bool = False) -> dict[str, tuple[int, ...]]:
        """Return every tensor of a Hugging Face folder with its shape; `is_fused`: one tensor for a layer's experts."""

    def fused_place(self, name: str) -> FusedPlace | None:
        """Return where a tensor is stored in a folder with fused experts; None if it is stored under its own name."""


def rank_part(split: Split | None, shape: tuple[int, ...], layout: Layout, ranks: Ranks) -> tuple[slice, ...]:
    """Return the slices of a rank's part of a Hugging Face tensor of shape `shape`."""
    slices = [slice(0, size) for size in shape]
    if split is not None:
        size, rank = shape[split.dim] // getattr(layout, split.axis), getattr(ranks, split.axis)
        slices[split.dim] = slice(rank * size, (rank + 1) * size)
    return tuple(slices)
