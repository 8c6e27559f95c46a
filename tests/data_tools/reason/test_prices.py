"""The cost of a run with a teacher."""

import pytest

from acc_megatron.common.answer_cache import Usage
from acc_megatron.data_tools.reason.prices import Prices
from acc_megatron.errors import ConfigError

USAGE = Usage(requests=3, input_tokens=2_000_000, output_tokens=500_000, other_tokens=100_000)


def test_the_cost_is_tokens_times_price_and_a_range_if_some_were_not_counted() -> None:
    prices = Prices(input=0.5, output=2.0)
    found = prices.described(USAGE)
    assert (found["cost"], found["largest_cost"]) == (2.0, pytest.approx(2.2))
    assert prices.line(USAGE) == (
        "requests 3, tokens in 2,000,000, out 500,000, not counted 100,000, cost 2.00 to 2.20"
    )
    counted = Usage(requests=1, input_tokens=10, output_tokens=20, other_tokens=0)
    assert prices.line(counted) == "requests 1, tokens in 10, out 20, cost 0.00"


def test_without_prices_the_tokens_are_shown_and_the_cost_is_unknown() -> None:
    assert Prices().described(USAGE)["cost"] is None and "cost" not in Prices().line(USAGE)
    with pytest.raises(ConfigError, match="give both prices, --price-in and --price-out"):
        Prices(input=1.0)
