"""Every size of the study, for the full grid and for the smoke version."""

from dataclasses import dataclass

# the options of `compile` that make each arm
ARMS: dict[str, tuple[str, ...]] = {
    "acc": (),
    "no-distractors": ("--no-distractors",),
    "no-shuffle": ("--no-shuffle",),
    "masked-30": ("--mask-observations", "0.3"),
    "agent-sft": ("--arm", "agent-sft"),
}
ROW_TOKENS = 2048  # data.seq_length_tokens of model.toml
HOPS = (1, 2, 3)  # one road is retrieval, two or three are multi-hop


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase of training the base: the range of pages per context, and the learning rate at its start and end."""

    name: str
    min_pages: int
    max_pages: int
    num_tokens: int
    learning_rate: float
    end_learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The sizes of one grid; `lengths_pages` are the lengths of the held-out contexts."""

    phases: tuple[Phase, ...]
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    arm_steps: int
    arm_pages: tuple[int, int]
    arm_learning_rate: float
    lengths_pages: tuple[int, ...]
    questions_per_cell: int  # for each length and number of hops


FULL = Settings(
    phases=(
        Phase(name="few", min_pages=2, max_pages=6, num_tokens=2_000_000, learning_rate=6e-3, end_learning_rate=4e-3),
        Phase(name="more", min_pages=4, max_pages=16, num_tokens=2_000_000, learning_rate=4e-3, end_learning_rate=2e-3),
        Phase(name="many", min_pages=8, max_pages=24, num_tokens=2_000_000, learning_rate=3e-3, end_learning_rate=1e-4),
    ),
    arms=tuple(ARMS),
    seeds=(0, 1, 2),
    arm_steps=200,
    arm_pages=(16, 32),
    arm_learning_rate=3e-3,
    lengths_pages=(8, 16, 32, 48),
    questions_per_cell=80,
)
SMOKE = Settings(
    phases=(
        Phase(name="few", min_pages=2, max_pages=4, num_tokens=60_000, learning_rate=6e-3, end_learning_rate=1e-3),
    ),
    arms=("acc", "agent-sft"),
    seeds=(0,),
    arm_steps=5,
    arm_pages=(6, 9),
    arm_learning_rate=1e-3,
    lengths_pages=(6, 12),
    questions_per_cell=4,
)
