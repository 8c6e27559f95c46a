"""The settings of a run: an invalid one is an error before anything is asked."""

from pathlib import Path
from typing import Any

import pytest
from support.eval_runs import endpoint, tree, truthful
from support.teacher_server import Teacher

from acc_megatron.errors import AccError
from acc_megatron.evaluate.runner import evaluate
from acc_megatron.evaluate.settings import run_from_tree


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, r"\[models\.NAME\]"),
        ({"benchmarks": {}}, r"\[benchmarks\.NAME\]"),
        ({"limit": 0}, "limit"),
        ({"seed": -1}, "seed is -1"),
        (
            {"models": {"m": {"endpoint": "http://x", "model": "m", "window_tokens": 0}}},
            r"models\.m\.window_tokens is 0",
        ),
        ({"repeats": 2}, "every repeat would be the same"),
        ({"models": {"m": {"endpoint": "http://x"}}}, "an endpoint needs model, the name of the model there"),
        ({"models": {"m": {}}}, "exactly one of endpoint and folder"),
        ({"models": {"m": {"endpoint": "ftp://x", "model": "m", "window_tokens": 1}}}, "http"),
        ({"models": {"m": {"folder": "absent"}}}, "config.json is missing"),
        ({"models": {"m": {"endpont": "x"}}}, r"did you mean models\.m\.endpoint"),
        ({"benchmarks": {"b": {"kind": "ruler"}}}, r"benchmarks\.b\.kind must be one of 'mrcr'"),
        ({"benchmarks": {"b": {"kind": ["mrcr"]}}}, r"benchmarks\.b\.kind must be one of 'mrcr'"),
        ({"benchmarks": {"b": {"kind": "mrcr", "tasks": ["x"]}}}, r"unknown key benchmarks\.b\.tasks"),
        ({"benchmarks": {"b": {"kind": "mrcr", "rows": ["x"], "items": 3}}}, "items is for generated rows"),
        ({"benchmarks": {"b": {"kind": "multiple_choice"}}}, "no generator"),
        ({"benchmarks": {"b": {"kind": "lm_eval"}}}, "tasks is missing"),
        ({"benchmarks": {"b": {"kind": "mrcr", "length_tokens": [100]}}}, "over the limit of 100"),
        ({"benchmarks": {"b": {"kind": "graphwalks", "operations": ["dfs"]}}}, "parents and bfs"),
        ({"benchmarks": {"b": {"kind": "graphwalks", "rows": ["absent.jsonl"]}}}, r"absent\.jsonl"),
    ],
)
def test_an_invalid_setting_is_named_and_nothing_is_asked(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with Teacher(truthful) as teacher:
        run = tree({"m": endpoint(teacher)}) | change
        with pytest.raises(AccError, match=message):
            evaluate(run_from_tree(run, "run.toml"), tmp_path / "out", show=print)
        assert not teacher.asked
    assert not (tmp_path / "out" / "results.json").exists()
