"""lm-eval's tasks as a benchmark of `eval`: lm-eval builds the prompts and grades, our models answer.

Rows come from the datasets that lm-eval downloads, or from a folder of task files. Thinking is removed before stop
strings are searched and before grading.
"""

from collections.abc import Mapping
from typing import Any

from acc_megatron.errors import ConfigError, DataError
from acc_megatron.evaluate.benchmarks.benchmark import Draw, Graded, PreparedBenchmark, graded_answer
from acc_megatron.evaluate.benchmarks.lm_eval_tasks.chat_model import chat_model
from acc_megatron.evaluate.benchmarks.lm_eval_tasks.tasks import (
    LmEvalSettings,
    cannot_run,
    check_tasks,
    groups_of_tasks,
    import_lm_eval,
    load_tasks,
    sample_rows,
    task_manager,
)
from acc_megatron.evaluate.benchmarks.paper import PaperColumn
from acc_megatron.evaluate.benchmarks.question import CountTokens
from acc_megatron.evaluate.models.prompt import Ask, NoAnswer, Outcome
from acc_megatron.evaluate.results_format import BenchmarkResult, Item


class LmEvalTasks:
    """Tasks of lm-eval (extra `[eval]`); their rows and metrics are lm-eval's."""

    kind = "lm_eval"
    settings = LmEvalSettings
    headline = None
    paper_columns = (
        PaperColumn(
            "GPQA-Diamond", (67.71, 70.20), ("exact_match,flexible-extract", "exact_match"), "task", "gpqa_diamond*"
        ),
        PaperColumn(
            "MMLU-Pro", (74.50, 76.00), ("exact_match,custom-extract", "exact_match"), "task_group", "mmlu_pro"
        ),
        PaperColumn("AIME24", (90.00, 90.00), ("exact_match",), "task", "aime24"),
        PaperColumn("AIME25", (86.67, 90.00), ("exact_match",), "task", "aime25"),
        PaperColumn("IFEval", (86.69, 86.14), ("prompt_level_strict_acc",), "task", "ifeval"),
    )

    def prepare(self, name: str, settings: LmEvalSettings, draw: Draw, count_tokens: CountTokens) -> PreparedBenchmark:
        """Find the tasks; their rows are loaded when the first model is asked.

        Raises EnvironmentProblem without lm-eval and ConfigError for an unknown task. Asking raises DataError if a task
        or its rows cannot be loaded, and ConfigError for a task that needs the likelihoods of given texts.
        """
        lm_eval = import_lm_eval()
        manager = task_manager(lm_eval, settings)
        check_tasks(lm_eval, manager, name, settings)
        return PreparedBenchmark(run=lambda ask: self._run(lm_eval, manager, name, settings, draw, ask))

    def describe_rows(self, result: BenchmarkResult, settings: Mapping[str, Any], tokenizer: str) -> str:
        """The names of the tasks."""
        return f"lm_eval, rows of its tasks: {', '.join(settings['tasks'])}"

    def _run(self, lm_eval: Any, manager: Any, name: str, settings: LmEvalSettings, draw: Draw, ask: Ask) -> Graded:
        """Every question `draw.repeats` times; `extra` contains lm-eval's own aggregate of each repeat."""
        samples = None
        if draw.limit is not None:
            samples = sample_rows(manager, settings, seed=draw.seed, limit=draw.limit)
        items: dict[str, Item] = {}
        aggregates = []
        for repeat in range(draw.repeats):
            model = chat_model(ask, name, settings.max_new_tokens, repeat)
            try:
                loaded = load_tasks(manager, settings, draw.seed)
                # simple_evaluate would also run pip and git to describe the machine
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
                raise cannot_run(name, error) from error
            aggregates.append(results["results"])
            group_of = groups_of_tasks(loaded.get("group_map", {}), settings.tasks)
            _collect(items, results["samples"], model.outcomes, name, repeat, group_of)
        for item in items.values():
            item["scores"] = _mean_scores(item)
        return Graded(list(items.values()), {"lm_eval": {"version": lm_eval.__version__, "repeats": aggregates}})


def _mean_scores(item: Item) -> dict[str, float]:
    """Means over the answers of the metrics that every answer has."""
    scores = [answer["scores"] for answer in item["answers"]]
    shared = set.intersection(*map(set, scores))
    return {metric: sum(one[metric] for one in scores) / len(scores) for metric in sorted(shared)}


def _collect(
    items: dict[str, Item],
    samples: dict[str, list[dict[str, Any]]],
    outcomes: dict[str, Outcome],
    name: str,
    repeat: int,
    group_of: Mapping[str, str],
) -> None:
    """Add one repeat's answers to `items`; questions without an answer are left out, whatever score lm-eval gave."""
    for task, rows in samples.items():
        for row in rows:
            context = row["arguments"][0][0]
            outcome = outcomes[context]
            if isinstance(outcome, NoAnswer):
                continue
            item_id = f"{name}/{task}/{row['doc_id']}"
            empty: Item = {
                "id": item_id,
                "benchmark": name,
                "groups": {"task": task} | ({"task_group": group_of[task]} if task in group_of else {}),
                "prompt_sha256": row["prompt_hash"],
                "answers": [],
                "scores": {},
            }
            item = items.setdefault(item_id, empty)
            if not item["answers"] or item["answers"][-1]["repeat"] != repeat:
                item["answers"].append(graded_answer(outcome, repeat, {}))
            # a filter is a way to find the answer, such as strict-match and flexible-extract
            suffix = "" if row["filter"] == "none" else f",{row['filter']}"
            scores = {metric: row[metric] for metric in row["metrics"] if isinstance(row[metric], bool | int | float)}
            item["answers"][-1]["scores"] |= {f"{metric}{suffix}": float(value) for metric, value in scores.items()}
