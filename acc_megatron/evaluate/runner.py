"""A run: every model answers every question; answers are graded and published as results.json and report.html.

Every answer is stored in answers.sqlite before it is used, so a run that was killed continues from there, and a
finished run is graded again without asking.
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from acc_megatron import __version__
from acc_megatron.common.answer_cache import AnswerCache, Budget
from acc_megatron.common.atomic_files import write_json
from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer
from acc_megatron.errors import AccError, DataError
from acc_megatron.evaluate.benchmarks.benchmark import Graded, PreparedBenchmark
from acc_megatron.evaluate.benchmarks.question import UNMATCHED_CHARS
from acc_megatron.evaluate.benchmarks.registry import BENCHMARKS
from acc_megatron.evaluate.models.model import Model, over_window
from acc_megatron.evaluate.models.open_model import opened_model
from acc_megatron.evaluate.models.prompt import Outcome, Prompt
from acc_megatron.evaluate.models.served_window import with_windows
from acc_megatron.evaluate.models.settings import ModelSettings
from acc_megatron.evaluate.models.tally import Tally
from acc_megatron.evaluate.report.page import write_report
from acc_megatron.evaluate.results import differences, read_results, summarise_items
from acc_megatron.evaluate.results_format import (
    FORMAT_VERSION,
    RESULTS_FILE,
    Asked,
    BenchmarkResult,
    ModelSummary,
    Results,
)
from acc_megatron.evaluate.settings import RunSettings

ANSWERS_FILE = "answers.sqlite"
Show = Callable[[str], None]


class EvaluationIncomplete(AccError):
    """Questions that fit the window have no answer; the next start asks only those."""

    exit_code = 1


@dataclass(frozen=True)
class Part:
    """One model on one benchmark."""

    graded: Graded
    asked: Asked


def evaluate(run: RunSettings, out: Path, *, compare_with: Sequence[Path] = (), show: Show) -> Results:
    """Run everything and write `out/results.json` and `out/report.html`; returns the results.

    The report also shows and compares the runs in the folders `compare_with`. A benchmark that a model cannot answer
    does not end the others; `check_complete` reports it. Raises an AccError before anything is asked if settings or
    rows are wrong, and DataError if no model answers any question.
    """
    started = time.monotonic()
    others = [read_results(folder) for folder in compare_with]
    run = dataclasses.replace(run, models=with_windows(run.models, _known_windows(run, out), show))
    tokenizer = load_tokenizer(run.tokenizer)
    prepared = {
        name: BENCHMARKS[settings.kind].prepare(name, settings, run.draw, tokenizer.count)
        for name, settings in run.benchmarks.items()
    }
    deadline = None if run.max_seconds is None else time.monotonic() + run.max_seconds
    out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, dict[str, Part]] = {name: {} for name in run.benchmarks}
    sources: dict[str, dict[str, Any]] = {}
    unanswered: dict[str, dict[str, str]] = {}
    with AnswerCache(out / ANSWERS_FILE, Budget(max_requests=run.max_requests, max_tokens=run.max_tokens)) as cache:
        if cache.num_interrupted:
            show(f"eval: {cache.num_interrupted} requests were in flight when the last start ended")
        for model_name, settings in run.models.items():
            with opened_model(
                model_name, settings, tokenizer, cache, seed=run.seed, deadline=deadline, out=out, show=show
            ) as model:
                for name, benchmark in prepared.items():
                    try:
                        parts[name][model_name] = _ask_benchmark(model, settings, name, benchmark, show)
                    except DataError as error:
                        show(f"eval {model_name} {name}: {error}")
                        unanswered.setdefault(name, {})[model_name] = str(error)
                sources[model_name] = model.describe()
        if cache.num_hits:
            show(f"eval: {cache.num_hits:,} answers were read from {out / ANSWERS_FILE} and not asked for again")
        requests = cache.spent() | {"from_cache": cache.num_hits, "interrupted": cache.num_interrupted}
    if not any(parts.values()):
        raise DataError(next(iter(next(iter(unanswered.values())).values())))
    results: Results = {
        "format_version": FORMAT_VERSION,
        "code_version": __version__,
        "name": run.name,
        "settings": run.as_dict(),
        "tokenizer": {"name": tokenizer.name, "sha256": tokenizer.sha256},
        "models": sources,
        "benchmarks": {
            name: _benchmark_result(run, name, prepared[name], by_model) for name, by_model in parts.items() if by_model
        },
        "items": [
            {"model": model, **item}
            for by_model in parts.values()
            for model, part in by_model.items()
            for item in part.graded.items
        ],
        "requests": requests,
        "seconds": round(time.monotonic() - started, 3),
    }
    if unanswered:
        results["unanswered"] = unanswered
    write_json(out / RESULTS_FILE, results)
    write_report([results, *others], out / "report.html")
    return results


def _known_windows(run: RunSettings, out: Path) -> dict[str, int]:
    """The windows that servers stated at an earlier start in `out`, so that a finished run needs no server."""
    try:
        before = read_results(out)["settings"]["models"]
    except DataError:
        return {}
    now = run.as_dict()["models"]
    same = (
        name for name in now if all(before.get(name, {}).get(key) == now[name][key] for key in ("endpoint", "model"))
    )
    return {name: before[name]["window_tokens"] for name in same if before[name].get("window_tokens")}


def _ask_benchmark(model: Model, settings: ModelSettings, name: str, benchmark: PreparedBenchmark, show: Show) -> Part:
    """Ask one model the questions of one benchmark. Raises DataError if it answers none."""
    tally = Tally(f"{model.name} {name}", settings.price_input, settings.price_output, show)

    def ask(prompts: list[Prompt]) -> list[Outcome]:
        tally.num_expected += len(prompts)
        too_long = {index: problem for index, prompt in enumerate(prompts) if (problem := over_window(model, prompt))}
        for problem in too_long.values():
            tally.add(problem)
        asked = [prompt for index, prompt in enumerate(prompts) if index not in too_long]
        answered = iter(model.answer(asked, tally.add))
        return [too_long[index] if index in too_long else next(answered) for index in range(len(prompts))]

    graded = benchmark.run(ask)
    show(tally.line())
    for reason, count in tally.without_answer.items():
        show(f"eval {model.name} {name}: {count} without answer, {reason}: {tally.details[reason]}")
    if not graded.items:
        reasons = "; ".join(
            f"{count} {reason}, such as {tally.details[reason]}" for reason, count in tally.without_answer.items()
        )
        where = model.describe()
        raise DataError(
            f"models.{model.name} at {where.get('endpoint') or where['folder']} answered no question of "
            f"benchmarks.{name}: {reasons}; fix this and run the same command again"
        )
    num_longer = sum(
        answer["scores"].get(UNMATCHED_CHARS, 0) > 0 for item in graded.items for answer in item["answers"]
    )
    if num_longer:
        show(
            f"eval {model.name} {name}: {num_longer} answers are longer than the grader matches; "
            "the rest of each counts as wrong"
        )
    return Part(graded, tally.asked(num_longer))


def check_complete(results: Results) -> None:
    """Raise EvaluationIncomplete if questions that fit the window have no answer, or a benchmark has none."""
    reasons: Counter[str] = Counter()
    for benchmark in results["benchmarks"].values():
        for model in benchmark["models"].values():
            reasons.update(model["asked"]["without_answer"])
    del reasons["over_window"]
    for name, by_model in results.get("unanswered", {}).items():
        for model_name, why in by_model.items():
            raise EvaluationIncomplete(
                f"{model_name} answered no question of {name}, so the results do not include it: {why}"
            )
    if reasons:
        words = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        raise EvaluationIncomplete(
            f"{reasons.total()} questions have no answer ({words}), and the results do not include them; "
            "run the same command again to ask only these"
        )


def _benchmark_result(
    run: RunSettings, name: str, prepared: PreparedBenchmark, parts: Mapping[str, Part]
) -> BenchmarkResult:
    models = {}
    for model, part in parts.items():
        summary = summarise_items(part.graded.items, part.asked, samples=run.bootstrap_samples, seed=run.seed)
        models[model] = cast(ModelSummary, {**summary, **part.graded.extra})
    items_of = {model: part.graded.items for model, part in parts.items()}
    return {
        "kind": run.benchmarks[name].kind,
        "generated": prepared.generated,
        "left_out": prepared.left_out,
        "corrected_truths": prepared.corrected_truths,
        "models": models,
        "differences": differences(items_of, samples=run.bootstrap_samples, seed=run.seed),
    }
