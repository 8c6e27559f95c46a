"""The settings of an evaluation: models and benchmarks by name, from a TOML file or for one model folder."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acc_megatron.config import apply_override, from_dict, read_tree
from acc_megatron.errors import ConfigError
from acc_megatron.evaluate.benchmarks.benchmark import BenchmarkSettings, Draw
from acc_megatron.evaluate.benchmarks.registry import BENCHMARKS
from acc_megatron.evaluate.checks import check_at_least
from acc_megatron.evaluate.models.settings import ModelSettings
from acc_megatron.optional import install_command, is_installed

GENERATED = ("graphwalks", "mrcr")  # the kinds that need no file of rows


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The whole run. `limit` bounds the rows of each benchmark or lm-eval task, `repeats` is the k of avg@k.

    The budgets `max_requests` and `max_tokens` count over all starts of the run, `max_seconds` limits one start.
    """

    name: str
    seed: int = 0
    limit: int | None = None
    repeats: int = 1
    tokenizer: str = "qwen3"  # fills generated rows and measures lengths, the same for every model
    bootstrap_samples: int = 2000
    max_requests: int | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    models: dict[str, ModelSettings]
    benchmarks: dict[str, BenchmarkSettings]

    @property
    def draw(self) -> Draw:
        """Which questions are asked."""
        return Draw(seed=self.seed, limit=self.limit, repeats=self.repeats)

    def as_dict(self) -> dict[str, Any]:
        """A plain tree, as it is written to the results; endpoints come without their query, which may hold a key."""
        tree = dataclasses.asdict(self)
        for model in tree["models"].values():
            model["endpoint"] = model["endpoint"] and model["endpoint"].partition("?")[0]
        return tree


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunSettings:
    """The run of a TOML file with `key=value` overrides. Raises ConfigError, naming the key."""
    return run_from_tree(read_tree(path, overrides), str(path))


def folder_run(
    folder: Path, *, items: int, length_tokens: int, max_new_tokens: int, overrides: Sequence[str] = ()
) -> RunSettings:
    """The run of `eval HF_DIR`: generated GraphWalks and MRCR on one exported folder."""
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"no Hugging Face model in {folder}: config.json is missing; "
            "run 'acc-megatron export RUN --out FOLDER' first"
        )
    tree: dict[str, Any] = {
        "name": folder.resolve().name,
        "tokenizer": str(folder) if (folder / "tokenizer.json").is_file() else "qwen3",
        "models": {folder.resolve().name: {"folder": str(folder)}},
        "benchmarks": {kind: _generated(kind, items, length_tokens, max_new_tokens) for kind in GENERATED},
    }
    return _changed_run(tree, overrides, str(folder))


def endpoint_run(
    endpoint: str,
    models: Sequence[str],
    tasks: Sequence[str],
    *,
    window_tokens: int | None,
    items: int,
    length_tokens: int,
    max_new_tokens: int,
    overrides: Sequence[str] = (),
) -> RunSettings:
    """The run of `eval --endpoint`: generated benchmarks, and lm-eval's tasks, on models of one server.

    Raises ConfigError for a task that neither this package nor lm-eval has.
    """
    benchmarks: dict[str, Any] = {}
    for task in tasks:
        if task in GENERATED:
            benchmarks[task] = _generated(task, items, length_tokens, max_new_tokens)
        elif is_installed("lm_eval"):
            benchmarks[task] = {"kind": "lm_eval", "tasks": [task], "max_new_tokens": max_new_tokens}
        else:
            raise ConfigError(
                f"unknown task {task!r}; the tasks are {', '.join(GENERATED)}, and those of lm-eval after "
                f"{install_command('lm_eval')}"
            )
    model = {"endpoint": endpoint} | ({} if window_tokens is None else {"window_tokens": window_tokens})
    tree: dict[str, Any] = {
        "name": " and ".join(models),
        "models": {name: {**model, "model": name} for name in models},
        "benchmarks": benchmarks,
    }
    return _changed_run(tree, overrides, "--endpoint")


def _generated(kind: str, items: int, length_tokens: int, max_new_tokens: int) -> dict[str, Any]:
    """The table of a benchmark whose questions are generated."""
    return {"kind": kind, "items": items, "length_tokens": [length_tokens], "max_new_tokens": max_new_tokens}


def _changed_run(tree: dict[str, Any], overrides: Sequence[str], where: str) -> RunSettings:
    for override in overrides:
        apply_override(tree, override)
    return run_from_tree(tree, where)


def run_from_tree(tree: dict[str, Any], where: str) -> RunSettings:
    """A run from a plain tree, with every setting checked. Raises ConfigError, naming the key."""
    for section in ("models", "benchmarks"):
        if not tree.get(section):
            raise ConfigError(f"{where}: give at least one table [{section}.NAME]")
    benchmarks = tree["benchmarks"]
    run = from_dict(RunSettings, tree | {"benchmarks": {}}, where)
    for name, value in (("limit", run.limit), ("repeats", run.repeats), ("bootstrap_samples", run.bootstrap_samples)):
        if value is not None:
            check_at_least(name, value, 1)
    check_at_least("seed", run.seed, 0)
    for name, model in run.models.items():
        model.check(f"{where}: models.{name}", repeats=run.repeats)
    if not isinstance(benchmarks, dict):
        raise ConfigError(f"{where}: benchmarks must be tables [benchmarks.NAME], got {benchmarks!r}")
    return dataclasses.replace(
        run, benchmarks={name: _benchmark_settings(name, table, where) for name, table in benchmarks.items()}
    )


def _benchmark_settings(name: str, table: Any, where: str) -> BenchmarkSettings:
    kind = table.get("kind") if isinstance(table, dict) else None
    if not isinstance(kind, str) or kind not in BENCHMARKS:
        known = ", ".join(map(repr, BENCHMARKS))
        raise ConfigError(f"{where}: benchmarks.{name}.kind must be one of {known}, got {kind!r}")
    settings = from_dict(BENCHMARKS[kind].settings, table, where, f"benchmarks.{name}.")
    settings.check(table, f"{where}: benchmarks.{name}")
    return settings
