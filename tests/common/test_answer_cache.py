"""The cache of answers counts spending across runs, and budgets apply to all of them."""

import random
from pathlib import Path

import pytest

from acc_megatron.common.answer_cache import AnswerCache, Budget
from acc_megatron.errors import DataError, Dropped


@pytest.mark.parametrize("seed", range(5))
def test_spending_is_counted_across_runs(tmp_path: Path, seed: int) -> None:
    rng, path = random.Random(seed), tmp_path / "answers.sqlite"
    num_requests, costs = 0, {}
    for _ in range(3):  # runs with one file
        with AnswerCache(path, Budget()) as cache:
            for _ in range(20):
                reserved = rng.randrange(1_000)
                number = cache.begin(f"question {rng.randrange(10)}", reserved)
                num_requests, costs[number] = num_requests + 1, reserved
                match rng.randrange(4):
                    case 0:
                        costs[number] = rng.randrange(2_000)
                        cache.finish(number, f"question {number}", {"answer": "a"}, costs[number])
                    case 1:
                        costs[number] = 0
                        cache.fail(number, tokens=0)
                    case 2:
                        cache.fail(number, tokens=None)  # it may have been paid
                    case 3:
                        pass  # in flight when the run ends
                assert cache.spent() == {"requests": num_requests, "tokens": sum(costs.values())}
        with AnswerCache(path, Budget()) as cache:
            assert cache.spent() == {"requests": num_requests, "tokens": sum(costs.values())}


def test_a_budget_applies_to_all_runs_with_one_file(tmp_path: Path) -> None:
    path, budget = tmp_path / "answers.sqlite", Budget(max_requests=3, max_tokens=100)
    with AnswerCache(path, budget) as cache:
        cache.finish(cache.begin("a", 90), "a", {"answer": "a"}, 10)
        cache.begin("b", 60)
        with pytest.raises(Dropped, match="70 tokens spent, 31 more could exceed the limit 100"):
            cache.begin("c", 31)
    with AnswerCache(path, budget) as cache:
        assert (cache.get("a"), cache.get("b"), cache.num_hits, cache.num_interrupted) == ({"answer": "a"}, None, 1, 1)
        cache.begin("c", 30)
        with pytest.raises(Dropped, match="3 requests were sent, the limit is 3"):
            cache.begin("d", 0)


def test_a_file_that_another_run_uses_or_that_is_not_a_cache_is_refused(tmp_path: Path) -> None:
    with (
        AnswerCache(tmp_path / "answers.sqlite", Budget()),
        pytest.raises(DataError, match="is another run using it"),
    ):
        AnswerCache(tmp_path / "answers.sqlite", Budget())
    (tmp_path / "notes").write_text("no database" * 100)
    with pytest.raises(DataError, match="cannot use the cache"):
        AnswerCache(tmp_path / "notes", Budget())
