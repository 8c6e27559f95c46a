"""The two factors of LoRA next to one of Megatron's parallel linear layers.

peft adds `alpha / rank * x A^T B^T` to every matrix of Hugging Face. Megatron stores some of these matrices as one
parameter, for example q, k and v. Each keeps its own factors here, and the map of weights that joins the matrices joins
the second factors too, so that the sum is in Megatron's order of rows.

Which factor is split follows from the matrix: of a column-parallel one B is split like its rows, and of a row-parallel
one A is split like its columns. The other factor is equal on all ranks of the group. Under sequence parallelism each
rank sees some of the tokens with it, so its gradient is summed over the group.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)

from acc_megatron.adapter.grouped import grouped_product
from acc_megatron.config import AdapterConfig
from acc_megatron.model.weight_map import Entry


@dataclass(frozen=True)
class Matrix:
    """One Hugging Face matrix that gets factors; `shape` is complete, `[out, in]`."""

    module: str  # such as model.layers.0.self_attn.q_proj; of an expert, without its number
    shape: tuple[int, int]
    leaf: str


@dataclass(frozen=True)
class Place:
    """How a matrix is split over the ranks of a group."""

    split: int | None  # dim of the Hugging Face matrix
    group: Any
    rank: int
    size: int
    experts: tuple[int, int] | None = None  # first expert of this rank and number of all experts


class Factors(torch.nn.Module):
    """The factors of all Hugging Face matrices in one Megatron parameter.

    Parameters are `NAME_A [rank, in]` and `NAME_B [out, rank]` of this rank; those of experts have the local experts
    in front. A starts as in peft, uniform with variance 1 / (3 in), from a seed that its name gives, so that every
    layout starts equal; B starts at zero.
    """

    def __init__(
        self,
        matrices: list[Matrix | None],  # in the order of the entry; None: no factors
        rows: list[int],  # of each matrix on this rank
        entry: Entry,
        place: Place,
        settings: AdapterConfig,
        *,
        seed: int,
        num_local_experts: int = 0,
    ) -> None:
        super().__init__()
        self.matrices = [matrix for matrix in matrices if matrix is not None]
        self.place, self.entry, self.rows = place, entry, rows
        self.positions = [number for number, matrix in enumerate(matrices) if matrix is not None]
        self.rank, self.scale, self.dropout = settings.rank, settings.alpha / settings.rank, settings.dropout
        local = (num_local_experts,) if num_local_experts else ()
        for matrix in self.matrices:
            out, inside = _local(matrix.shape, place)
            first, second = torch.empty((*local, self.rank, inside)), torch.zeros((*local, out, self.rank))
            self._initialise(first, second, matrix, seed)
            self._register(f"{matrix.leaf}_A", first, dim=1, is_split=place.split == 1)
            self._register(f"{matrix.leaf}_B", second, dim=0, is_split=place.split == 0)

    def _initialise(self, first: torch.Tensor, second: torch.Tensor, matrix: Matrix, seed: int) -> None:
        """Fill this rank's part of A; `second` is zero already."""
        bound = 1 / math.sqrt(matrix.shape[1])
        for expert in range(first.shape[0]) if first.ndim == 3 else (None,):
            number = "" if expert is None else f".{expert + (self.place.experts or (0, 0))[0]}"
            complete = torch.empty((self.rank, matrix.shape[1]))
            complete.uniform_(-bound, bound, generator=_generator(seed, f"{matrix.module}{number}"))
            part = complete.chunk(self.place.size, 1)[self.place.rank] if self.place.split == 1 else complete
            (first if expert is None else first[expert]).copy_(part)

    def _register(self, name: str, values: torch.Tensor, *, dim: int, is_split: bool) -> None:
        parameter = torch.nn.Parameter(values)
        if self.place.experts is not None:
            parameter.allreduce = False  # type: ignore[attr-defined]
        if self.place.size > 1:
            set_tensor_model_parallel_attributes(parameter, is_split, values.ndim - 2 + dim, 1)
            if not is_split and self.place.experts is None:
                parameter.sequence_parallel = True  # type: ignore[attr-defined]
        self.register_parameter(name, parameter)

    def factor(self, matrix: Matrix, which: str) -> torch.nn.Parameter:
        """Return factor "A" or "B" of a matrix."""
        return getattr(self, f"{matrix.leaf}_{which}")

    def joined(self, expert: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return A of all matrices `[matrices x rank, in]`, and B `[rows of the parameter, matrices x rank]`.

        Without a number of an expert, those of experts have all local experts in front.
        """
        firsts: list[torch.Tensor] = []
        seconds: list[torch.Tensor] = []
        first: torch.Tensor
        second: torch.Tensor
        for matrix in self.matrices:
            first, second = self.factor(matrix, "A"), self.factor(matrix, "B")
            if expert is not None:
                first, second = first[expert], second[expert]
            if self.place.experts is not None and self.place.size > 1:  # dense factors are summed once per step
                if self.place.split == 0:
                    first = copy_to_tensor_model_parallel_region(first, group=self.place.group)
                else:
                    second = copy_to_tensor_model_parallel_region(second, group=self.place.group)
            firsts.append(first)
            seconds.append(second)
        if len(self.rows) == 1:
            return firsts[0], seconds[0]
        return torch.cat(firsts, -2), self._join(seconds)

    def _join(self, seconds: list[torch.Tensor]) -> torch.Tensor:
        """Place each B in columns of its own, and join the rows as those of the matrices are joined."""
        width = self.rank * len(self.matrices)
        padded = [seconds[0].new_zeros(*seconds[0].shape[:-2], rows, width) for rows in self.rows]
        for number, (position, second) in enumerate(zip(self.positions, seconds, strict=True)):
            padded[position] = F.pad(second, (self.rank * number, width - self.rank * (number + 1)))
        if padded[0].ndim == 2:
            return self.entry.join(*padded)
        num_experts = len(padded[0])  # the map of weights joins matrices: more columns for more experts
        wide = [second.transpose(0, 1).reshape(-1, num_experts * width) for second in padded]
        return self.entry.join(*wide).view(-1, num_experts, width).transpose(0, 1)

    def dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the dropout to the input of the factors."""
        return F.dropout(x, self.dropout) if self.training and self.dropout else x

    def forward(self, x: torch.Tensor, expert: int | None = None, splits: list[int] | None = None) -> torch.Tensor:
        """Return what the factors add to the layer's output for the layer's input `x`.

        In a layer of experts, `x` has the tokens of one expert, or `splits` has the number of tokens of each.
        """
        first, second = self.joined(expert)
        if splits is not None:
            return grouped_product(grouped_product(self.dropped(x), first, splits) * self.scale, second, splits)
        narrow = F.linear(self.dropped(x), first) * self.scale
        if self.place.size > 1 and self.place.experts is None:
            if self.place.split == 0:
                narrow = gather_from_sequence_parallel_region(narrow, group=self.place.group)
            elif self.place.split == 1:
                narrow = reduce_scatter_to_sequence_parallel_region(narrow, group=self.place.group)
        return F.linear(narrow, second)


class EmbeddingFactors(Factors):
    """The factors of the embedding: A `[rank, vocabulary]` starts at zero as in peft, B `[hidden, rank]` normal."""

    def _initialise(self, first: torch.Tensor, second: torch.Tensor, matrix: Matrix, seed: int) -> None:
        first.zero_()
        second.normal_(generator=_generator(seed, matrix.module))

    def forward(self, tokens: torch.Tensor, *_: None) -> torch.Tensor:  # type: ignore[override]
        """Return what the factors add to the embedding of `tokens [rows, tokens]`, in the layer's order of dims."""
        table = self.factor(self.matrices[0], "A").T
        place = self.place
        local = tokens - place.rank * len(table)
        is_here = (local >= 0) & (local < len(table))
        narrow = F.embedding(torch.where(is_here, local, 0), table) * is_here[..., None] * self.scale
        if place.size > 1:
            narrow = reduce_scatter_to_sequence_parallel_region(narrow.transpose(0, 1).contiguous(), group=place.group)
        return F.linear(narrow, self.factor(self.matrices[0], "B"))


class RouterFactors(Factors):
    """The factors of a router, which computes in float32."""

    def forward(self, x: torch.Tensor, *_: None) -> torch.Tensor:  # type: ignore[override]
        """Return what the factors add to the logits of the experts, float32."""
        first, second = self.joined()
        return F.linear(F.linear(self.dropped(x).float(), first.float()) * self.scale, second.float())


class HeadFactors(Factors):
    """The factors of the output head, which are added to its weight: the masked head takes one weight."""

    def forward(self, weight: torch.Tensor, *_: None) -> torch.Tensor:  # type: ignore[override]
        """Return the sum of this rank's `weight [vocabulary, hidden]` and the product of the factors."""
        first, second = self.joined()
        return torch.addmm(weight, second, first, alpha=self.scale)


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _local(shape: tuple[int, int], place: Place) -> tuple[int, int]:
    out, inside = shape
    return (
        out // place.size if place.split == 0 else out,
        inside // place.size if place.split == 1 else inside,
    )
