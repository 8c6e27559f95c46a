"""The functions of `import acc_megatron as acc`; importing this module loads no torch."""

import dataclasses
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acc_megatron.errors import ConfigError
from acc_megatron.optional import is_installed, missing_package

if TYPE_CHECKING:
    from pandas import DataFrame

    from acc_megatron.config import Config
    from acc_megatron.data.documents import Dataset
    from acc_megatron.data_tools.compile.judge import JudgeSettings
    from acc_megatron.data_tools.compile.near_duplicates import NearSettings
    from acc_megatron.data_tools.convert.manifest import DatasetManifest

PathLike = str | os.PathLike[str]
Paths = PathLike | Sequence[PathLike]


def compile(
    inputs: Paths,
    out: PathLike,
    *,
    agent: str = "auto",
    resources: Paths = (),
    tokenizer: str = "qwen3",
    near: "NearSettings | None" = None,
    messages: bool = False,
    judge: "JudgeSettings | None" = None,
    workers: int = 1,
    max_bad_share: float = 0.01,
    **settings: Any,
) -> dict[str, Any]:
    """Compile trajectories of agents into the folder of triples `out`; returns its manifest.

    `settings` are the fields of `CompileSettings`, such as `budget_tokens` and `seed`. Raises ConfigError for a wrong
    setting, DataError for unusable inputs, TooManyBadRows above `max_bad_share`.
    """
    from acc_megatron.data_tools.compile.compile import compile_inputs
    from acc_megatron.data_tools.compile.settings import CompileSettings
    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer

    _check_names(settings, [field.name for field in dataclasses.fields(CompileSettings)])
    return compile_inputs(
        _paths(inputs),
        _path(out),
        agent=agent,
        resources=_paths(resources),
        settings=CompileSettings(**settings),
        tokenizer=load_tokenizer(tokenizer),
        max_bad_share=max_bad_share,
        near=near,
        with_messages=messages,
        num_workers=workers,
        judge=judge,
    )


def convert(
    inputs: Paths,
    out: PathLike,
    *,
    tokenizer: str = "qwen3",
    template: str = "qwen3",
    max_tokens: int = 131_072,
    workers: int = 1,
    max_bad_share: float = 0.01,
    engine: str = "auto",
) -> "DatasetManifest":
    """Convert triples, chats or rows of the published dataset into the dataset folder `out`; returns its manifest.

    Documents of more than `max_tokens` are dropped and counted, never cut. Raises DataError for unusable inputs,
    ConfigError for an unknown template, TooManyBadRows above `max_bad_share`.
    """
    from acc_megatron.data_tools.convert import convert as conversion

    settings = conversion.ConvertSettings(tokenizer=tokenizer, template=template, max_tokens=max_tokens)
    return conversion.convert(
        _paths(inputs), _path(out), settings, num_workers=workers, max_bad_share=max_bad_share, engine=engine
    )


def open_dataset(path: PathLike) -> "Dataset":
    """Open a dataset folder; raises DataError for one that is missing, truncated or of another version."""
    from acc_megatron.data.documents import Dataset

    return Dataset(_path(path))


def load_config(path: PathLike, overrides: Sequence[str] = ()) -> "Config":
    """Read a training recipe, with `section.key=value` overrides; raises ConfigError, naming the key."""
    from acc_megatron import config

    return config.load_config(_path(path), list(overrides))


def read_run(path: PathLike) -> "DataFrame":
    """Return the logged steps of a run folder as a pandas frame, one row a step, indexed by `step`.

    The columns are the values of steps.jsonl; of a step that was repeated after a restart, the last line counts. Raises
    DataError for a folder without logged steps, EnvironmentProblem without pandas.
    """
    _need_pandas("read_run")
    from pandas import DataFrame

    from acc_megatron.errors import DataError
    from acc_megatron.observe.metrics import STEPS_FILE, read_steps

    folder = _path(path)
    if not (folder / STEPS_FILE).is_file():
        raise DataError(f"no run at {folder}: {STEPS_FILE} is missing")
    steps = read_steps(folder)
    if not steps:
        raise DataError(f"the run at {folder} has logged no step yet")
    return DataFrame(steps).set_index("step")


def read_scores(path: PathLike) -> "DataFrame":
    """Return the graded questions of an `eval` folder as a pandas frame, one row for each model and question.

    Its columns are `model`, `benchmark`, `id`, `num_tokens`, `num_answers`, the groups of the question (such as
    `bin_tokens`) and the metrics, which are fractions and means over the answers. A metric that a benchmark lacks is
    NaN. Raises DataError for a folder without results, EnvironmentProblem without pandas.
    """
    _need_pandas("read_scores")
    from pandas import DataFrame

    from acc_megatron.evaluate.results import read_results

    return DataFrame(
        {
            **{key: item.get(key) for key in ("model", "benchmark", "id", "num_tokens")},
            "num_answers": len(item["answers"]),
            **item["groups"],
            **item["scores"],
        }
        for item in read_results(_path(path))["items"]
    )


def _path(path: PathLike) -> Path:
    return Path(path).expanduser()


def _paths(paths: Paths) -> list[Path]:
    return [_path(paths)] if isinstance(paths, str | os.PathLike) else [_path(path) for path in paths]


def _check_names(given: dict[str, Any], known: list[str]) -> None:
    """Raise ConfigError for a setting that does not exist."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"compile has no setting {name}; {hint}")


def _need_pandas(function: str) -> None:
    if not is_installed("pandas"):
        raise missing_package("pandas", function)
