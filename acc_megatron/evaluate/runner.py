"""A run: every model asked every question, graded, and published as results.json and report.html.

What was answered is in answers.sqlite before anything else is done with it, so a run that was killed goes on where it
was, and one that is finished is graded again without asking.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from acc_megatron import __version__
from acc_megatron.data_tools.answer_cache import AnswerCache, Budget
from acc_megatron.data_tools.atomic import write_json
from acc_megatron.data_tools.tokenizer import Tokenizer, load_tokenizer
from acc_megatron.errors import AccError, DataError
from acc_megatron.evaluate import harness
from acc_megatron.evaluate.endpoint import EndpointModel
from acc_megatron.evaluate.local import LocalModel, folder_config, folder_digest
from acc_megatron.evaluate.models import Asking, Model, Outcome, Prompt, Tally, fits
from acc_megatron.evaluate.questions import QuestionSet, make_questions
from acc_megatron.evaluate.report import write_report
from acc_megatron.evaluate.results import (
    FORMAT_VERSION,
    RESULTS_FILE,
    differences,
    graded_items,
    read_results,
    summarise_items,
)
from acc_megatron.evaluate.settings import ModelSettings, RunSettings
from acc_megatron.evaluate.vllm_server import serving

ANSWERS_FILE = "answers.sqlite"
Show = Callable[[str], None]
Part = dict[str, Any]  # one model on one benchmark: items, tally, and lm-eval's own aggregates


class EvaluationIncomplete(AccError):
    """Some questions got no answer although they could have; a second start asks those alone."""

    exit_code = 1


def evaluate(run: RunSettings, out: Path, *, beside: Sequence[Path] = (), show: Show) -> dict[str, Any]:
    """Run everything, write `out/results.json` and `out/report.html`; returns the results.

    `beside` are the folders of other runs, drawn and compared beside this one. Raises an AccError before anything is
    asked when settings or rows are wrong, and DataError when a model got no answer at all to a benchmark.
    """
    started = time.monotonic()
    others = [read_results(folder) for folder in beside]
    for name, benchmark in run.benchmarks.items():
        if benchmark.kind == "lm_eval":
            harness.check_tasks(name, benchmark)
    tokenizer = load_tokenizer(run.tokenizer)
    questions = {
        name: make_questions(name, benchmark, run, tokenizer.count)
        for name, benchmark in run.benchmarks.items()
        if benchmark.kind != "lm_eval"
    }
    deadline = None if run.max_seconds is None else time.monotonic() + run.max_seconds
    out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, dict[str, Part]] = {name: {} for name in run.benchmarks}
    sources: dict[str, Any] = {}
    with AnswerCache(out / ANSWERS_FILE, Budget(max_requests=run.max_requests, max_tokens=run.max_tokens)) as cache:
        if cache.num_interrupted:
            show(f"eval: {cache.num_interrupted} requests were in flight when the last start ended")
        for model_name, settings in run.models.items():
            with _opened(model_name, settings, run, tokenizer, cache, deadline, out, show) as model:
                for name in run.benchmarks:
                    parts[name][model_name] = _ask_benchmark(model, settings, name, run, questions.get(name), show)
                sources[model_name] = model.describe()
        if cache.num_hits:
            show(f"eval: {cache.num_hits:,} answers are from {out / ANSWERS_FILE}, not asked for again")
        requests = cache.spent() | {"from_cache": cache.num_hits, "interrupted": cache.num_interrupted}
    results = _assemble(run, tokenizer, questions, parts, sources) | {
        "requests": requests,
        "seconds": round(time.monotonic() - started, 3),
    }
    write_json(out / RESULTS_FILE, results)
    write_report([results, *others], out / "report.html")
    return results


@contextmanager
def _opened(
    name: str,
    settings: ModelSettings,
    run: RunSettings,
    tokenizer: Tokenizer,
    cache: AnswerCache,
    deadline: float | None,
    out: Path,
    show: Show,
) -> Iterator[Model]:
    """The model, with a server of its own where it needs one."""
    if settings.tokenizer is not None:
        tokenizer = load_tokenizer(settings.tokenizer)
    elif settings.folder is not None and (Path(settings.folder) / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(settings.folder)
    asking = Asking(name=name, settings=settings, tokenizer=tokenizer, cache=cache, seed=run.seed, deadline=deadline)
    if settings.endpoint is not None:
        yield EndpointModel(asking)
    elif settings.engine == "vllm":
        folder = Path(settings.folder or "")
        window = settings.window_tokens or folder_config(folder)["max_position_embeddings"]
        log = out / f"vllm-{quote(name, safe=' ')}.log"
        with serving(settings, name=name, log=log, show=show) as url:
            served = replace(settings, endpoint=url, model=name, window_tokens=window)
            yield EndpointModel(replace(asking, settings=served), identity=folder_digest(folder))
    else:
        yield LocalModel(asking)


def _ask_benchmark(
    model: Model, settings: ModelSettings, name: str, run: RunSettings, made: QuestionSet | None, show: Show
) -> Part:
    """Ask one model one benchmark: its items, what it cost, and why some questions have no answer."""
    benchmark = run.benchmarks[name]
    tally = Tally(f"{model.name} {name}", settings.price_input, settings.price_output, 0, show)

    def ask(prompts: list[Prompt]) -> list[Outcome]:
        tally.num_expected += len(prompts)
        refused = {place: problem for place, prompt in enumerate(prompts) if (problem := fits(model, prompt))}
        for problem in refused.values():
            tally.add(problem)
        asked = [prompt for place, prompt in enumerate(prompts) if place not in refused]
        answered = iter(model.answer(asked, tally.add))
        return [refused[place] if place in refused else next(answered) for place in range(len(prompts))]

    if made is None:
        part = harness.run_tasks(name, benchmark, run, ask)
    else:
        prompts = [
            Prompt(id=one.id, messages=one.messages, max_new_tokens=benchmark.max_new_tokens, repeat=repeat)
            for one in made.questions
            for repeat in range(run.repeats)
        ]
        outcomes = ask(prompts)
        by_question = [outcomes[start : start + run.repeats] for start in range(0, len(outcomes), run.repeats)]
        part = {"items": graded_items(made.questions, by_question, benchmark.kind)}
    show(tally.line())
    for reason, count in tally.refused.items():
        show(f"eval {model.name} {name}: {count} without answer, {reason}: {tally.details[reason]}")
    if not part["items"]:
        reasons = "; ".join(
            f"{count} {reason}, such as {tally.details[reason]}" for reason, count in tally.refused.items()
        )
        where = model.describe()
        raise DataError(
            f"models.{model.name} at {where.get('endpoint') or where['folder']} answered no question of "
            f"benchmarks.{name}: {reasons}; mend that and run the same command again"
        )
    num_bounded = sum(
        answer["scores"].get("unmatched_chars", 0) > 0 for item in part["items"] for answer in item["answers"]
    )
    if num_bounded:
        show(f"eval {model.name} {name}: {num_bounded} answers are longer than is matched; their rest counts as wrong")
    return part | {"tally": tally.as_dict() | {"num_longer_than_matched": num_bounded}}


def check_complete(results: dict[str, Any]) -> None:
    """Raise EvaluationIncomplete when questions that fit the window have no answer."""
    reasons: dict[str, int] = {}
    for benchmark in results["benchmarks"].values():
        for model in benchmark["models"].values():
            for reason, count in model["asked"]["without_answer"].items():
                if reason != "over_window":
                    reasons[reason] = reasons.get(reason, 0) + count
    if reasons:
        words = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        raise EvaluationIncomplete(
            f"{sum(reasons.values())} questions have no answer ({words}); the results are of the others; "
            "run the same command again to ask these alone"
        )


def _assemble(
    run: RunSettings,
    tokenizer: Tokenizer,
    questions: dict[str, QuestionSet],
    parts: dict[str, dict[str, Part]],
    sources: dict[str, Any],
) -> dict[str, Any]:
    sure = {"samples": run.bootstrap_samples, "seed": run.seed}
    benchmarks: dict[str, Any] = {}
    for name, by_model in parts.items():
        made = questions.get(name)
        benchmarks[name] = {
            "kind": run.benchmarks[name].kind,
            "generated": run.benchmarks[name].kind in ("mrcr", "graphwalks") and not run.benchmarks[name].rows,
            "left_out": made.left_out if made else {},
            "corrected_truths": made.corrected_truths if made else 0,
            "models": {
                model: summarise_items(part["items"], **sure)
                | {"asked": part["tally"]}
                | ({"lm_eval": part["harness"]} if "harness" in part else {})
                for model, part in by_model.items()
            },
            "differences": differences({model: part["items"] for model, part in by_model.items()}, **sure),
        }
    settings = run.as_dict()
    for model in settings["models"].values():
        model["endpoint"] = model["endpoint"] and model["endpoint"].partition("?")[0]
    return {
        "format_version": FORMAT_VERSION,
        "code_version": __version__,
        "name": run.name,
        "settings": settings,
        "tokenizer": {"name": tokenizer.name, "sha256": tokenizer.sha256},
        "models": sources,
        "benchmarks": benchmarks,
        "items": [
            {"model": model, **item}
            for by_model in parts.values()
            for model, part in by_model.items()
            for item in part["items"]
        ],
    }
