"""What an evaluation is made of: models and benchmarks by name, from one TOML file, or from a folder in short."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from acc_megatron.config import apply_override, from_dict, read_tree
from acc_megatron.errors import ConfigError
from acc_megatron.evaluate.items import Wording, check_at_least

BenchmarkKind = Literal["mrcr", "graphwalks", "multiple_choice", "lm_eval"]
# keys that mean something for some kinds alone
_KEYS_OF: dict[str, tuple[BenchmarkKind, ...]] = {
    "rows": ("mrcr", "graphwalks", "multiple_choice"),
    "max_chars": ("mrcr", "graphwalks", "multiple_choice"),
    "items": ("mrcr", "graphwalks"),
    "length_tokens": ("mrcr", "graphwalks"),
    "needles": ("mrcr",),
    "operations": ("graphwalks",),
    "wording": ("graphwalks",),
    "tasks": ("lm_eval",),
    "task_folder": ("lm_eval",),
    "num_fewshot": ("lm_eval",),
}


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """One model: an OpenAI-compatible `endpoint` and its name there, or a local Hugging Face `folder`.

    A folder is asked through transformers, one question after the other, or served by vLLM for as long as it is
    asked. `template` says how prompts are rendered and whether they open the thinking. The key of an endpoint is read
    from the environment variable `key_variable` and never written. Prices are money for a million tokens.
    """

    endpoint: str | None = None
    model: str | None = None
    folder: str | None = None
    engine: Literal["transformers", "vllm"] = "transformers"
    gpus: int = 1  # for vllm
    start_seconds: float = 1800.0  # for vllm: how long the server may take until it answers
    window_tokens: int | None = None  # of prompt and answer together; a folder has its own
    tokenizer: str | None = None  # qwen3 or a path; by default the folder's, or the run's for an endpoint
    template: Literal["qwen3", "qwen3-thinking-2507"] = "qwen3"
    enable_thinking: bool | None = None  # for endpoints whose chat template has the switch
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    price_input: float = 0.0
    price_output: float = 0.0
    key_variable: str = "ACC_API_KEY"
    concurrency: int = 16
    tries: int = 5
    timeout_seconds: float = 3600.0
    max_reply_bytes: int = 16 << 20


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """One benchmark: published `rows` (files or globs), or rows of our generators, or tasks of lm-eval.

    Of generated rows there are `items` of every length; needle counts and operations take turns. Rows with a longer
    prompt than `max_chars` are left out and counted.
    """

    kind: BenchmarkKind
    rows: list[str] = field(default_factory=list)
    max_chars: int | None = None
    items: int = 8
    length_tokens: list[int] = field(default_factory=lambda: [4096])
    needles: list[int] = field(default_factory=lambda: [2, 4])
    operations: list[str] = field(default_factory=lambda: ["parents", "bfs"])
    wording: Wording = "corrected"
    tasks: list[str] = field(default_factory=list)
    task_folder: str | None = None
    num_fewshot: int | None = None
    max_new_tokens: int = 4096


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The whole run. `limit` bounds the rows of each benchmark or lm-eval task, `repeats` is the k of avg@k.

    What may be spent holds over every start of the run: requests, tokens, and seconds of one start.
    """

    name: str
    seed: int = 0
    limit: int | None = None
    repeats: int = 1
    tokenizer: str = "qwen3"  # fills generated rows and bins lengths, the same for every model
    bootstrap_samples: int = 2000
    max_requests: int | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    models: dict[str, ModelSettings]
    benchmarks: dict[str, BenchmarkSettings]

    def as_dict(self) -> dict[str, Any]:
        """The plain tree, as written into results."""
        return dataclasses.asdict(self)


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunSettings:
    """The run of a TOML file under `key=value` overrides; raises ConfigError by key."""
    return run_from_tree(read_tree(path, overrides), str(path))


def folder_run(
    folder: Path, *, items: int, length_tokens: int, max_new_tokens: int, overrides: Sequence[str] = ()
) -> RunSettings:
    """GraphWalks and MRCR on one exported folder: the run that `eval HF_DIR` stands for."""
    if not (folder / "config.json").is_file():
        raise ConfigError(f"no Hugging Face model in {folder}: config.json is missing; export one first")
    generated = {"items": items, "length_tokens": [length_tokens], "max_new_tokens": max_new_tokens}
    tree: dict[str, Any] = {
        "name": folder.resolve().name,
        "tokenizer": str(folder) if (folder / "tokenizer.json").is_file() else "qwen3",
        "models": {folder.resolve().name: {"folder": str(folder)}},
        "benchmarks": {kind: {"kind": kind, **generated} for kind in ("graphwalks", "mrcr")},
    }
    for override in overrides:
        apply_override(tree, override)
    return run_from_tree(tree, str(folder))


def run_from_tree(tree: dict[str, Any], where: str) -> RunSettings:
    """A run from a plain tree, every setting checked; raises ConfigError by key."""
    run = from_dict(RunSettings, tree, where)
    for section in ("models", "benchmarks"):
        if not getattr(run, section):
            raise ConfigError(f"{where}: give at least one table [{section}.NAME]")
    for name, value in (("limit", run.limit), ("repeats", run.repeats), ("bootstrap_samples", run.bootstrap_samples)):
        if value is not None:
            check_at_least(name, value, 1)
    check_at_least("seed", run.seed, 0)
    for name, model in run.models.items():
        _check_model(model, run, f"{where}: models.{name}")
    for name, benchmark in run.benchmarks.items():
        given = tree["benchmarks"][name]
        _check_benchmark(benchmark, given, f"{where}: benchmarks.{name}")
    return run


def _check_model(model: ModelSettings, run: RunSettings, where: str) -> None:
    if (model.endpoint is None) == (model.folder is None):
        raise ConfigError(f"{where}: give exactly one of endpoint and folder")
    if model.endpoint is not None and (model.model is None or model.window_tokens is None):
        raise ConfigError(f"{where}: an endpoint needs model (its name there) and window_tokens (what it can hold)")
    if model.folder is not None and not (Path(model.folder) / "config.json").is_file():
        raise ConfigError(f"{where}.folder: no Hugging Face model in {model.folder}: config.json is missing")
    if run.repeats > 1 and model.temperature == 0:
        raise ConfigError(f"{where}.temperature is 0 and repeats is {run.repeats}: every repeat would be the same")
    for name in ("gpus", "concurrency", "tries", "max_reply_bytes", "window_tokens", "top_k"):
        if getattr(model, name) is not None:
            check_at_least(f"{where}.{name}", getattr(model, name), 1)
    if model.top_p is not None and not 0 < model.top_p <= 1:
        raise ConfigError(f"{where}.top_p is {model.top_p}; it must be above 0 and at most 1")
    for name in ("timeout_seconds", "start_seconds"):
        if not getattr(model, name) > 0:
            raise ConfigError(f"{where}.{name} is {getattr(model, name)}; it must be above 0")
    for name in ("temperature", "price_input", "price_output"):
        if not 0 <= getattr(model, name) < float("inf"):
            raise ConfigError(f"{where}.{name} is {getattr(model, name)}; it must be 0 or more")


def _check_benchmark(benchmark: BenchmarkSettings, given: dict[str, Any], where: str) -> None:
    for key, kinds in _KEYS_OF.items():
        if key in given and benchmark.kind not in kinds:
            raise ConfigError(f"{where}.{key} means nothing for kind {benchmark.kind!r}, only for {', '.join(kinds)}")
    if benchmark.rows:
        for key in ("items", "length_tokens", "needles", "operations", "wording"):
            if key in given:
                raise ConfigError(f"{where}.{key} is for generated rows, and rows gives files; use limit or max_chars")
    if benchmark.kind == "multiple_choice" and not benchmark.rows:
        raise ConfigError(f"{where}.rows is missing: multiple choice has no generator")
    if benchmark.kind == "lm_eval" and not benchmark.tasks:
        raise ConfigError(f"{where}.tasks is missing: name lm-eval's tasks, such as gpqa_diamond_cot_zeroshot")
    for key, values in (("length_tokens", benchmark.length_tokens), ("needles", benchmark.needles)):
        if not values or min(values) < 1:
            raise ConfigError(f"{where}.{key} must be one or more positive numbers, got {values}")
    unknown = set(benchmark.operations) - {"parents", "bfs"}
    if unknown or not benchmark.operations:
        raise ConfigError(f"{where}.operations must be of parents and bfs, got {benchmark.operations}")
    for key in ("items", "max_new_tokens"):
        check_at_least(f"{where}.{key}", getattr(benchmark, key), 1)
