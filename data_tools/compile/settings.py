"""The settings of a compile."""

from dataclasses import dataclass, field

from acc_megatron.data_tools.compile.distractor_fill import FillTargets
from acc_megatron.data_tools.compile.distractor_tiers import check_tier
from acc_megatron.data_tools.compile.masked_observations import ARMS
from acc_megatron.data_tools.sources.sql.table_text import TableFormat
from acc_megatron.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileSettings:
    """How trajectories become triples; `budget_tokens` limits the whole rendered document.

    Without `shuffle`, pieces stay in the order in which the agent met them. `distractor_tier` is one of TIERS in
    distractor_tiers.py, `fill_tokens` gives agent kinds a target length, `mask_observations` is the share of evidence
    pieces whose text is replaced, `arm` is one of ARMS. `require_verdict` drops runs that nobody judged,
    `allow_empty_reasoning` keeps documents whose reasoning is empty. Raises ConfigError for an invalid value or a
    contradiction.
    """

    budget_tokens: int = 131_072
    distractors: bool = True
    distractor_tier: str = "found"
    shuffle: bool = True
    seed: int = 0
    table_format: TableFormat = "markdown"
    arm: str = "acc"
    mask_observations: float = 0.0
    fill_tokens: FillTargets = field(default_factory=dict)
    require_verdict: bool = False
    allow_empty_reasoning: bool = False

    def __post_init__(self) -> None:
        check_tier(self.distractor_tier)
        if self.distractor_tier != "found" and not self.distractors:
            raise ConfigError("--distractors chooses distractors and --no-distractors removes them: give only one")
        if self.arm not in ARMS:
            raise ConfigError(f"unknown arm {self.arm!r}; known: {', '.join(ARMS)}")
        if not 0 <= self.mask_observations <= 1:
            raise ConfigError(f"--mask-observations must be between 0 and 1, got {self.mask_observations}")
        if self.fill_tokens and not self.distractors:
            raise ConfigError(
                "--fill-tokens adds distractors and --no-distractors removes them: give only one of the two"
            )
        for agent, (_, longest) in self.fill_tokens.items():
            if longest > self.budget_tokens:
                raise ConfigError(
                    f"--fill-tokens asks for {longest} tokens for {agent}, more than --budget-tokens "
                    f"{self.budget_tokens}: lower the target or raise the budget"
                )
