"""The layouts that are compared with one process: each axis once, pairs of axes, and the distributed optimizer."""

import dataclasses
from dataclasses import dataclass
from typing import Any

NUM_STEPS = 5
SGD = ("optimizer.kind=sgd", "optimizer.learning_rate=0.3", "optimizer.min_learning_rate=0.3")


@dataclass(frozen=True)
class Case:
    """A layout by its settings, its number of processes and its number of steps."""

    name: str
    world: int
    overrides: tuple[str, ...] = ()
    compare_gradients: bool = True
    num_steps: int = NUM_STEPS


def _case(name: str, world: int, **sizes: Any) -> Case:
    return Case(name, world, tuple(f"parallel.{key}={value}" for key, value in sizes.items()))


SINGLES = [
    _case("TP2 (SP)", 2, tensor=2),
    _case("TP2 ETP2", 2, tensor=2, expert_tensor=2),
    _case("EP2", 2, expert=2),
    _case("CP2", 2, context=2),
    _case("PP2", 2, pipeline=2),
    _case("PP2 VPP2", 2, pipeline=2, virtual_pipeline=2),
    _case("DP2", 2),
    _case("DP2 overlap", 2, overlap_grad_reduce="true"),
    Case("EP2 allgather", 2, ("parallel.expert=2", "moe.dispatcher=allgather")),
    Case("EP2, head recomputes", 2, ("parallel.expert=2", "loss.plan=recompute")),
    Case("EP2 full recompute", 2, ("parallel.expert=2", "memory.recompute=full")),
    Case(
        "CP2 selective recompute", 2,
        ("parallel.context=2", "memory.recompute=selective", "memory.recompute_modules=['core_attn', 'layernorm']"),
    ),
]  # fmt: skip
PAIRS = [
    _case("TP2 CP2", 4, tensor=2, context=2),
    _case("TP2 EP2", 4, tensor=2, expert=2),
    _case("TP2 PP2", 4, tensor=2, pipeline=2),
    _case("TP2 DP2", 4, tensor=2),
    _case("CP2 EP2", 4, context=2, expert=2),
    _case("CP2 PP2", 4, context=2, pipeline=2),
    _case("CP2 DP2", 4, context=2),
    _case("EP2 PP2", 4, expert=2, pipeline=2),
    _case("EP2 DP4", 4, expert=2),
    _case("PP2 DP2", 4, pipeline=2),
    _case("CP4", 4, context=4),
    _case("TP2 CP2 EP4", 4, tensor=2, context=2, expert=4),
]

# The distributed optimizer needs AdamW and leaves each rank only its shard of the summed gradients. These cases compare
# losses and the gradient norm of every step, which shows a wrong scale that AdamW would hide.
ADAM = ("optimizer.kind=adamw", "optimizer.learning_rate=1e-3", "optimizer.min_learning_rate=1e-3")
OVERLAPPED = (
    *ADAM,
    "parallel.distributed_optimizer=true",
    "parallel.overlap_grad_reduce=true",
    "parallel.overlap_param_gather=true",
)


def _sharded(name: str, world: int, *overrides: str) -> Case:
    return Case(f"{name}, distributed optimizer overlapped", world, (*OVERLAPPED, *overrides), compare_gradients=False)


SHARDED_SINGLES = [
    Case("DP2, distributed optimizer", 2, (*ADAM, "parallel.distributed_optimizer=true"), compare_gradients=False),
    _sharded("DP2", 2),
]
SHARDED_PAIRS = [
    _sharded("DP4", 4),
    _sharded("EP2 DP4", 4, "parallel.expert=2"),
    _sharded("CP2 DP2", 4, "parallel.context=2"),
    _sharded("TP2 DP2", 4, "parallel.tensor=2"),
    _sharded("PP2 DP2", 4, "parallel.pipeline=2"),
]


def without_experts(cases: list[Case]) -> list[Case]:
    """The cases that a dense model has too."""
    return [case for case in cases if not any("expert" in override or "moe" in override for override in case.overrides)]


# the last layer computes supervised rows only, and the reference all rows
SUPERVISED = ("loss.last_layer_rows=supervised",)


def supervised(cases: list[Case]) -> list[Case]:
    """The cases with a last layer that computes supervised rows only."""
    return [
        dataclasses.replace(case, name=f"{case.name}, supervised rows", overrides=(*SUPERVISED, *case.overrides))
        for case in cases
        if "moe.dispatcher=allgather" not in case.overrides  # it needs equally many rows on every rank
    ]


# the smallest form of every promise, in the fast tests: each axis once, then three together
FEW_STEPS = 2
# balancing loss and z-loss as large as the loss itself; rows have padding at their ends, so ranks have unequal shares
BALANCED = ("moe.load_balancing=aux_loss", "moe.load_balancing_coefficient=1.0", "moe.z_loss_coefficient=0.1")


def balanced(cases: list[Case]) -> list[Case]:
    """The cases with balancing losses; in more than two such large steps, a last bit turns the choice of an expert."""
    return [dataclasses.replace(case, overrides=(*BALANCED, *case.overrides), num_steps=FEW_STEPS) for case in cases]


FAST_ON_2 = [dataclasses.replace(case, num_steps=FEW_STEPS) for case in SINGLES if case.name in
             ("TP2 (SP)", "EP2", "CP2", "PP2 VPP2", "DP2 overlap")]  # fmt: skip
FAST_ON_4 = [dataclasses.replace(PAIRS[-1], num_steps=FEW_STEPS)]
FAST_SHARDED = [dataclasses.replace(SHARDED_SINGLES[-1], num_steps=FEW_STEPS)]
FAST_SUPERVISED = supervised([dataclasses.replace(case, num_steps=FEW_STEPS) for case in SINGLES if case.name in
                             ("TP2 (SP)", "CP2")])  # fmt: skip
SUPERVISED_SINGLES, SUPERVISED_PAIRS = supervised(SINGLES), supervised(PAIRS)
FAST_BALANCED = balanced([case for case in SINGLES if case.name in ("TP2 (SP)", "CP2")])
BALANCED_SINGLES, BALANCED_PAIRS = balanced(SINGLES), balanced(PAIRS)
