"""GPQA, MMLU-Pro, AIME, IFEval and the rest of lm-eval's generative tasks, asked through our own models and cache.

lm-eval (extra `[eval]`) makes the prompts and grades the answers. Rows come from its datasets, which it downloads, or
from a folder of task files. Thinking is removed before stop strings are looked for, and both before grading.
"""

import difflib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from acc_megatron.errors import ConfigError, DataError, EnvironmentProblem
from acc_megatron.evaluate.items import Message, strip_thinking
from acc_megatron.evaluate.models import Answer, NoAnswer, Outcome, Prompt
from acc_megatron.evaluate.settings import BenchmarkSettings, RunSettings

Ask = Callable[[list[Prompt]], list[Outcome]]


def run_tasks(name: str, benchmark: BenchmarkSettings, run: RunSettings, ask: Ask) -> dict[str, Any]:
    """Ask every question of the tasks of benchmark `name`, `run.repeats` times.

    Returns `items` as for our own benchmarks, and `harness`, lm-eval's own aggregate of each repeat. Raises
    EnvironmentProblem without lm-eval, DataError when a task or its rows cannot be loaded, ConfigError for a task
    that needs the likelihood of given texts, which a chat endpoint does not tell.
    """
    lm_eval = _lm_eval()
    manager = _manager(lm_eval, benchmark)
    samples = _sample(manager, benchmark, run) if run.limit is not None else None
    items: dict[str, dict[str, Any]] = {}
    aggregates = []
    for repeat in range(run.repeats):
        model = _asking_model(ask, name, benchmark.max_new_tokens, repeat)
        try:
            loaded = _load(manager, benchmark, run)
            # simple_evaluate would also run pip and git, to describe the machine
            results = lm_eval.evaluator.evaluate(
                lm=model,
                task_dict=loaded,
                samples=samples,
                apply_chat_template=True,
                fewshot_as_multiturn=True,
                log_samples=True,
                bootstrap_iters=0,
            )
        except (ConfigError, DataError):
            raise
        except Exception as error:  # tasks are other people's code, and their rows come over the network
            raise _cannot_run(name, error) from error
        aggregates.append(results["results"])
        group_of = _group_of(loaded.get("group_map", {}), benchmark.tasks)
        _collect(items, results["samples"], model.outcomes, name, repeat, group_of)
    for item in items.values():
        graded = [answer["scores"] for answer in item["answers"]]
        metrics = {metric for scores in graded for metric in scores}
        item["scores"] = {
            metric: sum(scores[metric] for scores in graded) / len(graded)
            for metric in sorted(metrics)
            if all(metric in scores for scores in graded)
        }
    return {"items": list(items.values()), "harness": {"version": lm_eval.__version__, "repeats": aggregates}}


def check_tasks(name: str, benchmark: BenchmarkSettings) -> None:
    """Raises EnvironmentProblem without lm-eval, and ConfigError for a task that it does not know."""
    lm_eval = _lm_eval()
    known = _manager(lm_eval, benchmark).all_tasks
    for task in benchmark.tasks:
        if task not in known and not Path(task).is_file():
            near = difflib.get_close_matches(task, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"benchmarks.{name}.tasks: lm-eval {lm_eval.__version__} has no task {task!r}{hint}")


def _lm_eval() -> Any:
    try:
        import lm_eval
        import lm_eval.evaluator
        import lm_eval.tasks
    except ImportError as error:
        raise EnvironmentProblem(
            f"benchmarks of kind lm_eval need lm-eval ({error}): run pip install 'acc-megatron[eval]'"
        ) from None
    return lm_eval


def _manager(lm_eval: Any, benchmark: BenchmarkSettings) -> Any:
    """lm-eval's index of tasks; its own thousands of files are read only where the folder lacks a task."""
    if benchmark.task_folder is not None:
        manager = lm_eval.tasks.TaskManager(include_path=benchmark.task_folder, include_defaults=False)
        if set(benchmark.tasks) <= set(manager.all_tasks):
            return manager
    return lm_eval.tasks.TaskManager(include_path=benchmark.task_folder)


def _load(manager: Any, benchmark: BenchmarkSettings, run: RunSettings) -> dict[str, Any]:
    """The tasks with their examples in the prompt: as many as the task says, or none, or as set here."""
    loaded: dict[str, Any] = manager.load(list(benchmark.tasks))
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own != 0:  # a task that says 0 has none to give
            task.set_config(
                key="num_fewshot", value=benchmark.num_fewshot if benchmark.num_fewshot is not None else own or 0
            )
        task.set_fewshot_seed(seed=run.seed)
        if (process := task.get_config("process_docs")) is not None:
            task.set_config(key="process_docs", value=_drawing_from(run.seed, process))
    return loaded


def _group_of(children: Mapping[str, Sequence[str]], asked: Sequence[str]) -> dict[str, str]:
    """The group that was asked for by each of its tasks, such as mmlu_pro by mmlu_pro_law; other tasks have none."""
    found: dict[str, str] = {}

    def walk(name: str, group: str) -> None:
        for child in children.get(name, ()):
            found.setdefault(child, group)
            walk(child, group)

    for name in asked:
        walk(name, name)
    return found


def _drawing_from(seed: int, process: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A task's own function of its rows with the global generator seeded: GPQA draws its order of choices from there.

    So a question is the same for every model and repeat, and after a kill.
    """

    def processed(rows: Any) -> Any:
        import datasets

        state, caching = random.getstate(), datasets.is_caching_enabled()
        random.seed(seed)
        datasets.disable_caching()  # which would keep what was drawn under another seed
        try:
            return process(rows)
        finally:
            random.setstate(state)
            if caching:
                datasets.enable_caching()

    return processed


def _cannot_run(name: str, error: Exception) -> DataError:
    words = " ".join(str(error).split())[:300]
    return DataError(
        f"benchmarks.{name}: lm-eval could not run its tasks: {type(error).__name__}: {words}; datasets that it cannot "
        "download can be given as local files in a task_folder"
    )


def _sample(manager: Any, benchmark: BenchmarkSettings, run: RunSettings) -> dict[str, list[int]]:
    """Seeded row numbers of each task, `run.limit` at most."""
    try:
        tasks = _load(manager, benchmark, run)["tasks"]
        sizes = {name: len(list(task.eval_docs)) for name, task in tasks.items()}
    except Exception as error:
        raise _cannot_run(", ".join(benchmark.tasks), error) from error
    assert run.limit is not None
    return {
        name: sorted(random.Random(f"{run.seed}/{name}").sample(range(size), min(run.limit, size)))
        for name, size in sizes.items()
    }


def _collect(
    items: dict[str, dict[str, Any]],
    samples: dict[str, list[dict[str, Any]]],
    outcomes: dict[str, Outcome],
    name: str,
    repeat: int,
    group_of: Mapping[str, str],
) -> None:
    """Add one repeat's answers to the items; a question without an answer has none, whatever lm-eval made of it."""
    for task, rows in samples.items():
        for row in rows:
            context = row["arguments"][0][0]
            outcome = outcomes[context]
            if isinstance(outcome, NoAnswer):
                continue
            item = items.setdefault(
                f"{name}/{task}/{row['doc_id']}",
                {
                    "id": f"{name}/{task}/{row['doc_id']}",
                    "benchmark": name,
                    "groups": {"task": task} | ({"task_group": group_of[task]} if task in group_of else {}),
                    "prompt_sha256": row["prompt_hash"],
                    "answers": [],
                },
            )
            if not item["answers"] or item["answers"][-1]["repeat"] != repeat:
                item["answers"].append(answer_row(outcome, repeat) | {"scores": {}})
            # a filter is a way to find the answer, such as strict-match and flexible-extract
            suffix = "" if row["filter"] == "none" else f",{row['filter']}"
            scores = {metric: row[metric] for metric in row["metrics"] if isinstance(row[metric], bool | int | float)}
            item["answers"][-1]["scores"] |= {f"{metric}{suffix}": float(value) for metric, value in scores.items()}


def answer_row(outcome: Answer, repeat: int) -> dict[str, Any]:
    """An answer as it stands in the results."""
    return {
        "repeat": repeat,
        "response": outcome.response,
        "reasoning_chars": outcome.reasoning_chars,
        "finish_reason": outcome.finish_reason,
        "prompt_tokens": outcome.prompt_tokens,
        "new_tokens": outcome.new_tokens,
    }


def _asking_model(ask: Ask, name: str, max_new_tokens: int, repeat: int) -> Any:
    """lm-eval's kind of model over `ask`; made in a function because its base class is only there with the extra."""
    from lm_eval.api.model import LM

    class AskingModel(LM):
        """Chat messages travel through lm-eval as JSON text. Its own length and sampling settings are not used."""

        tokenizer_name = "chat"

        def __init__(self) -> None:
            super().__init__()
            self.outcomes: dict[str, Outcome] = {}

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            if not add_generation_prompt:
                raise ConfigError(f"benchmarks.{name}: a task that begins the answer itself cannot be asked as a chat")
            return json.dumps(chat_history, ensure_ascii=False)

        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            prompts, stops = [], []
            for number, request in enumerate(requests):
                context, settings = request.args
                messages: tuple[Message, ...] = tuple(
                    {"role": message["role"], "content": message["content"]} for message in json.loads(context)
                )
                prompts.append(
                    Prompt(
                        id=f"{name}/{request.task_name}/{number}",
                        messages=messages,
                        max_new_tokens=max_new_tokens,
                        repeat=repeat,
                    )
                )
                stops.append(settings.get("until") or [])
            outcomes = ask(prompts)
            self.outcomes |= {request.args[0]: outcome for request, outcome in zip(requests, outcomes, strict=True)}
            return [
                until(strip_thinking(outcome.response), stop) if isinstance(outcome, Answer) else ""
                for outcome, stop in zip(outcomes, stops, strict=True)
            ]

        def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
            raise ConfigError(
                f"benchmarks.{name}: task {requests[0].task_name} compares likelihoods, which chat models do not tell; "
                "choose a generative one, such as gpqa_diamond_cot_zeroshot"
            )

        def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
            self.loglikelihood(requests)
            return []

    return AskingModel()


def until(text: str, stops: Sequence[str] | str) -> str:
    """The text up to the first of the stop strings."""
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.partition(stop)[0] if stop else text
    return text
