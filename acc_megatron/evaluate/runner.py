"""Evaluate an exported model, or responses from elsewhere, on generated or local rows, into one `results.json`."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from acc_megatron.data_tools.atomic import write_json
from acc_megatron.data_tools.tokenizer import Tokenizer, load_tokenizer
from acc_megatron.errors import DataError
from acc_megatron.evaluate import graphwalks, mrcr
from acc_megatron.evaluate.chat import THINKING_OPENED, chat_ids
from acc_megatron.evaluate.generate import Generation, check_fits, generate, load_model
from acc_megatron.evaluate.items import CountTokens, Question, check_at_least, check_choice

FORMAT_VERSION = 1
RESULTS_FILE = "results.json"
METRICS: dict[str, tuple[str, ...]] = {graphwalks.NAME: graphwalks.METRICS, mrcr.NAME: mrcr.METRICS}
BENCHMARKS = tuple(METRICS)
logger = logging.getLogger(__name__)


def evaluate_folder(
    hf_dir: Path,
    out: Path,
    *,
    benchmarks: list[str],
    num_items: int,
    length_tokens: int,
    seed: int,
    max_new_tokens: int,
    tokenizer: Tokenizer | None = None,
    template: str = "qwen3",
    rows: Mapping[str, Path] | None = None,
    progress: Callable[[str], None] = logger.info,
) -> dict[str, Any]:
    """Ask the model in `hf_dir` `num_items` questions of each benchmark and publish `out/results.json`.

    Questions are generated from `seed` to fill `length_tokens`, or are the first `num_items` of a local file named
    in `rows` (JSONL or Parquet under the published columns). Without `tokenizer` the folder's `tokenizer.json` is
    read. Decoding is greedy, one question at a time. Raises an AccError before anything is written.
    """
    started = time.monotonic()
    check_at_least("max_new_tokens", max_new_tokens, 1)
    tokenizer = tokenizer or load_tokenizer(str(hf_dir))
    questions = make_questions(
        benchmarks,
        num_items=num_items,
        length_tokens=length_tokens,
        seed=seed,
        count_tokens=tokenizer.count,
        rows=rows or {},
    )
    prompts = {question.id: chat_ids(question.messages, tokenizer, template) for question in questions}
    model = load_model(hf_dir)
    check_fits(model, tokenizer, {name: len(ids) for name, ids in prompts.items()}, max_new_tokens)
    generations: dict[str, Generation] = {}
    for number, (name, ids) in enumerate(prompts.items(), start=1):
        generations[name] = generate(model, ids, tokenizer, max_new_tokens)
        progress(f"{number}/{len(prompts)} {name}: {len(ids)} tokens, {generations[name].seconds:.1f} s")
    opened = "<think>\n" if template == THINKING_OPENED else ""
    results = grade_responses(questions, {name: opened + made.text for name, made in generations.items()})
    for item in results["items"]:
        made = generations[item["id"]]
        item |= {
            "prompt_tokens": len(prompts[item["id"]]),
            "new_tokens": made.num_new_tokens,
            "cut_at_max_new_tokens": made.cut,
            "seconds": round(made.seconds, 3),
        }
    results |= {
        "model": str(hf_dir.resolve()),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "tokenizer": {"name": tokenizer.name, "sha256": tokenizer.sha256},
        "settings": {
            "benchmarks": benchmarks,
            "num_items": num_items,
            "length_tokens": length_tokens,
            "seed": seed,
            "max_new_tokens": max_new_tokens,
            "template": template,
            "decoding": "greedy",
            "rows": {name: str(path) for name, path in (rows or {}).items()},
        },
        "num_cut_at_max_new_tokens": sum(made.cut for made in generations.values()),
        "seconds": round(time.monotonic() - started, 3),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RESULTS_FILE, results)
    return results


def make_questions(
    benchmarks: Sequence[str],
    *,
    num_items: int,
    length_tokens: int,
    seed: int,
    count_tokens: CountTokens,
    rows: Mapping[str, Path],
) -> list[Question]:
    """`num_items` questions of each benchmark, generated or from its local file in `rows`.

    Raises ConfigError for an unknown benchmark, DataError for a file with fewer rows than asked for.
    """
    check_at_least("num_items", num_items, 1)
    check_at_least("number of benchmarks", len(benchmarks), 1)
    questions: list[Question] = []
    for name in rows:
        check_choice("rows are given for a benchmark that is not run; it", name, benchmarks)
    for name in dict.fromkeys(benchmarks):
        check_choice("benchmark", name, BENCHMARKS)
        if name in rows:
            questions += _read_questions(name, rows[name], num_items, count_tokens)
        elif name == graphwalks.NAME:
            items = graphwalks.make_items(num_items, length_tokens=length_tokens, count_tokens=count_tokens, seed=seed)
            questions += map(graphwalks.question, items)
        else:
            made = mrcr.make_rows(num_items, length_tokens=length_tokens, count_tokens=count_tokens, seed=seed)
            questions += [mrcr.question(row, f"mrcr/{seed}/{i}", count_tokens) for i, row in enumerate(made)]
    return questions


def _read_questions(name: str, path: Path, num_items: int, count_tokens: CountTokens) -> list[Question]:
    questions: list[Question] = []
    for where, row in read_rows(path):
        if len(questions) == num_items:
            break
        if name == graphwalks.NAME:
            questions.append(graphwalks.question(graphwalks.from_row(row, where)))
        else:
            questions.append(mrcr.question(mrcr.from_row(row, where), where, count_tokens))
    if len(questions) < num_items:
        raise DataError(f"{path} has {len(questions)} rows and num_items is {num_items}; ask for fewer")
    return questions


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a JSONL or Parquet file, each after its place, such as `folder/rows.jsonl:3`."""
    if not path.is_file():
        raise DataError(f"no file of rows at {path}")
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        batches = pq.ParquetFile(path).iter_batches(batch_size=16)
        rows: Iterable[Any] = (row for batch in batches for row in batch.to_pylist())
        yield from ((f"{path}:{number}", row) for number, row in enumerate(rows, start=1))
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: a row must be an object, got {type(row).__name__}")
            yield f"{path}:{number}", row


def grade_responses(questions: Sequence[Question], responses: Mapping[str, str]) -> dict[str, Any]:
    """Grade responses by question id, with no model: every item's scores, and means by benchmark and group.

    Raises DataError when an id has no response or no question: a missing answer would change the mean unseen.
    """
    ids = [question.id for question in questions]
    if len(set(ids)) < len(ids):
        raise DataError(f"{len(ids) - len(set(ids))} of {len(ids)} questions share an id with another")
    unmatched = sorted(set(ids) ^ set(responses))
    if unmatched:
        raise DataError(f"{len(unmatched)} ids have a question or a response alone, the first is {unmatched[0]!r}")
    items = [
        {
            "id": question.id,
            "benchmark": question.benchmark,
            "groups": question.groups,
            "prompt_sha256": question.sha256,
            "response": responses[question.id],
            "scores": question.grade(responses[question.id]),
        }
        for question in questions
    ]
    return {"format_version": FORMAT_VERSION, "benchmarks": _means_by_benchmark(items), "items": items}


def _means_by_benchmark(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over items, never over means, for each benchmark and each value of each of its groups."""
    summary: dict[str, Any] = {}
    for name in dict.fromkeys(item["benchmark"] for item in items):
        mine = [item for item in items if item["benchmark"] == name]
        groups: defaultdict[str, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        for item in mine:
            for group, value in item["groups"].items():
                groups[group][value].append(item)
        summary[name] = _means(name, mine) | {
            "groups": {
                group: {value: _means(name, members) for value, members in sorted(values.items())}
                for group, values in groups.items()
            }
        }
    return summary


def _means(benchmark: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    metrics = METRICS[benchmark]
    return {
        "num_items": len(items),
        "means": {metric: sum(item["scores"][metric] for item in items) / len(items) for metric in metrics},
    }
