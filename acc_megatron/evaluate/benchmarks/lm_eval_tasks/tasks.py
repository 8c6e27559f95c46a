"""lm-eval's tasks: found, checked, loaded and sampled under the run's seed."""

import difflib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acc_megatron.errors import ConfigError, DataError
from acc_megatron.evaluate.benchmarks.benchmark import BenchmarkSettings
from acc_megatron.optional import missing_package


@dataclass(frozen=True, kw_only=True)
class LmEvalSettings(BenchmarkSettings):
    """`tasks` are lm-eval's names or files; `task_folder` has more of them; `num_fewshot` replaces the tasks' own."""

    tasks: list[str] = field(default_factory=list)
    task_folder: str | None = None
    num_fewshot: int | None = None

    def check(self, given: Any, where: str) -> None:
        """Raise ConfigError without a task."""
        super().check(given, where)
        if not self.tasks:
            raise ConfigError(f"{where}.tasks is missing: name lm-eval's tasks, such as gpqa_diamond_cot_zeroshot")


def import_lm_eval() -> Any:
    """The package lm_eval. Raises EnvironmentProblem if it is not installed."""
    try:
        import lm_eval
        import lm_eval.evaluator
        import lm_eval.tasks
    except ModuleNotFoundError as error:
        raise missing_package("lm_eval", "a benchmark of kind lm_eval") from error
    return lm_eval


def task_manager(lm_eval: Any, settings: LmEvalSettings) -> Any:
    """lm-eval's index of tasks; its own thousands of files are read only if the folder lacks a task."""
    if settings.task_folder is not None:
        manager = lm_eval.tasks.TaskManager(include_path=settings.task_folder, include_defaults=False)
        if set(settings.tasks) <= set(manager.all_tasks):
            return manager
    return lm_eval.tasks.TaskManager(include_path=settings.task_folder)


def check_tasks(lm_eval: Any, manager: Any, name: str, settings: LmEvalSettings) -> None:
    """Raise ConfigError for a task that lm-eval does not know."""
    known = manager.all_tasks
    for task in settings.tasks:
        if task not in known and not Path(task).is_file():
            near = difflib.get_close_matches(task, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"benchmarks.{name}.tasks: lm-eval {lm_eval.__version__} has no task {task!r}{hint}")


def load_tasks(manager: Any, settings: LmEvalSettings, seed: int) -> dict[str, Any]:
    """The tasks, with the number of examples that `num_fewshot` or the task states, and none by default."""
    loaded: dict[str, Any] = manager.load(list(settings.tasks))
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own != 0:  # a task that says 0 has no examples
            num_fewshot = settings.num_fewshot if settings.num_fewshot is not None else own or 0
            task.set_config(key="num_fewshot", value=num_fewshot)
        task.set_fewshot_seed(seed=seed)
        if (process := task.get_config("process_docs")) is not None:
            task.set_config(key="process_docs", value=_seeded(seed, process))
    return loaded


def sample_rows(manager: Any, settings: LmEvalSettings, *, seed: int, limit: int) -> dict[str, list[int]]:
    """Seeded row numbers of each task, at most `limit`."""
    try:
        tasks = load_tasks(manager, settings, seed)["tasks"]
        sizes = {name: len(list(task.eval_docs)) for name, task in tasks.items()}
    except Exception as error:
        raise cannot_run(", ".join(settings.tasks), error) from error
    return {
        name: sorted(random.Random(f"{seed}/{name}").sample(range(size), min(limit, size)))
        for name, size in sizes.items()
    }


def groups_of_tasks(children: Mapping[str, Sequence[str]], requested: Sequence[str]) -> dict[str, str]:
    """The requested group of each of its tasks, such as mmlu_pro for mmlu_pro_law; other tasks have no entry."""
    found: dict[str, str] = {}

    def walk(name: str, group: str) -> None:
        for child in children.get(name, ()):
            found.setdefault(child, group)
            walk(child, group)

    for name in requested:
        walk(name, name)
    return found


def cannot_run(name: str, error: Exception) -> DataError:
    """The error for a task, or its rows, that cannot be loaded or run."""
    words = " ".join(str(error).split())[:300]
    return DataError(
        f"benchmarks.{name}: lm-eval could not run its tasks: {type(error).__name__}: {words}; datasets that it cannot "
        "download can be given as local files in a task_folder"
    )


def _seeded(seed: int, process: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A task's function of its rows, run with the global generator seeded: GPQA shuffles its choices with it.

    Every model, repeat and restarted run then asks the same question.
    """

    def processed(rows: Any) -> Any:
        import datasets

        state, caching = random.getstate(), datasets.is_caching_enabled()
        random.seed(seed)
        datasets.disable_caching()  # the cache would return what was drawn under another seed
        try:
            return process(rows)
        finally:
            random.setstate(state)
            if caching:
                datasets.enable_caching()

    return processed
