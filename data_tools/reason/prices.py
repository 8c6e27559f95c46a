"""What the requests to a teacher cost."""

from dataclasses import asdict, dataclass
from typing import Any

from acc_megatron.common.answer_cache import Usage
from acc_megatron.errors import ConfigError

_PER = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Money for a million tokens, in any currency; None if it is not known. Raises ConfigError for one price only."""

    input: float | None = None
    output: float | None = None

    def __post_init__(self) -> None:
        if (self.input is None) != (self.output is None):
            raise ConfigError("give both prices, --price-in and --price-out, or neither of them")

    def cost(self, usage: Usage) -> float | None:
        """The cost of the tokens that the endpoint counted."""
        if self.input is None or self.output is None:
            return None
        return (usage.input_tokens * self.input + usage.output_tokens * self.output) / _PER

    def largest_cost(self, usage: Usage) -> float | None:
        """The cost if tokens that nobody counted were spent, at the higher of the two prices."""
        cost = self.cost(usage)
        if cost is None or self.input is None or self.output is None:
            return None
        return cost + usage.other_tokens * max(self.input, self.output) / _PER

    def described(self, usage: Usage) -> dict[str, Any]:
        """Usage and cost for a manifest; costs are null without prices."""
        money = {"cost": self.cost(usage), "largest_cost": self.largest_cost(usage)}
        return asdict(usage) | {"price_in": self.input, "price_out": self.output} | money

    def line(self, usage: Usage) -> str:
        """Usage and cost for the progress line."""
        text = f"requests {usage.requests:,}, tokens in {usage.input_tokens:,}, out {usage.output_tokens:,}"
        text += f", not counted {usage.other_tokens:,}" if usage.other_tokens else ""
        cost, largest = self.cost(usage), self.largest_cost(usage)
        if cost is None or largest is None:
            return text
        return f"{text}, cost {cost:,.2f}" + (f" to {largest:,.2f}" if usage.other_tokens else "")
