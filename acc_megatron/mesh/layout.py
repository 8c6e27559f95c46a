"""The sizes of the mesh axes of a run, and a rank's place on them."""

import math
from dataclasses import dataclass

from acc_megatron.config import ParallelConfig
from acc_megatron.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Sizes of the mesh axes of a world.

    Dense layers:  world = tensor x context x pipeline x data.
    Expert layers: world = expert_tensor x expert x pipeline x expert_data.
    """

    world: int = 1
    tensor: int = 1
    context: int = 1
    pipeline: int = 1
    expert: int = 1
    expert_tensor: int = 1

    @property
    def data(self) -> int:
        """Number of replicas of the dense layers; each reads different packed rows."""
        return self.world // (self.tensor * self.context * self.pipeline)

    @property
    def expert_data(self) -> int:
        """Number of replicas of each expert."""
        return self.world // (self.expert_tensor * self.expert * self.pipeline)

    @property
    def num_chunks(self) -> int:
        """Number of zig-zag chunks that each document is cut into."""
        return 2 * self.context if self.context > 1 else 1

    def __str__(self) -> str:
        return f"TP{self.tensor} CP{self.context} PP{self.pipeline} EP{self.expert} DP{self.data}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """A rank's place on the axes that shard parameters."""

    tensor: int = 0
    expert_tensor: int = 0
    expert: int = 0
    pipeline: int = 0


def build_layout(parallel: ParallelConfig, world: int) -> Layout:
    """Return the layout of `world` ranks; raises ConfigError with the product that does not divide the world."""
    p = parallel
    for name in ("tensor", "context", "pipeline", "expert", "expert_tensor"):
        if getattr(p, name) < 1:
            raise ConfigError(f"parallel.{name} must be at least 1, got {getattr(p, name)}")
    dense = p.tensor * p.context * p.pipeline
    if world % dense:
        raise ConfigError(
            f"tp {p.tensor} x cp {p.context} x pp {p.pipeline} = {dense} does not divide {world} ranks; "
            f"change parallel.tensor, parallel.context or parallel.pipeline, or start a multiple of {dense} ranks"
        )
    experts = p.expert_tensor * p.expert * p.pipeline
    if world % experts:
        raise ConfigError(
            f"etp {p.expert_tensor} x ep {p.expert} x pp {p.pipeline} = {experts} does not divide {world} ranks; "
            "change parallel.expert, parallel.expert_tensor or parallel.pipeline"
        )
    return Layout(
        world=world,
        tensor=p.tensor,
        context=p.context,
        pipeline=p.pipeline,
        expert=p.expert,
        expert_tensor=p.expert_tensor,
    )


def smallest_world(parallel: ParallelConfig) -> int:
    """Return the smallest number of ranks that the layout allows, for dense and for expert layers."""
    p = parallel
    return p.pipeline * math.lcm(p.tensor * p.context, p.expert_tensor * p.expert)
