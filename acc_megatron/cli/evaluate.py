"""The verb `eval`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acc_megatron.cli.options import Json, Overrides, say_next
from acc_megatron.errors import ConfigError

if TYPE_CHECKING:
    from acc_megatron.evaluate.settings import RunSettings

verbs = typer.Typer()
_FOLDER_DEFAULTS = {"items": 8, "length_tokens": 4096, "max_new_tokens": 512}


@verbs.command(name="eval", short_help="Ask models long-context questions and grade their answers.")
def eval_(
    target: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="A TOML file of models and benchmarks, or an HF_DIR; or give --endpoint."),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output folder.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible URL, such as http://host:8000/v1.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Name of a model at the endpoint; repeatable.")] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="With --endpoint: tasks, such as mrcr,graphwalks.")
    ] = None,
    list_tasks: Annotated[bool, typer.Option("--list-tasks", help="Print the tasks of --task; ask nothing.")] = False,
    window_tokens: Annotated[
        int | None, typer.Option(min=1, help="With --endpoint: context size. Default: what the server states.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="At most this many rows of each benchmark or lm-eval task, drawn by seed.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of rows, samples and intervals.")] = None,
    compare_with: Annotated[
        list[Path] | None, typer.Option(help="Output folder of another run to compare with; repeatable.")
    ] = None,
    items: Annotated[
        int | None, typer.Option(help="Generated questions of each task (8), for an HF_DIR or --endpoint.")
    ] = None,
    length_tokens: Annotated[int | None, typer.Option(help="Length of a generated question (4096).")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Maximum length of an answer (512).")] = None,
    as_json: Json = False,
) -> None:
    """Ask models behind endpoints or in folders, grade the answers, and write results.json and report.html.

    A second start with the same --out asks only what has no answer yet. A folder means a run of generated GraphWalks
    and MRCR on it; --endpoint, --model and --task mean a run without a file. Keys are read from ACC_API_KEY.
    """
    from acc_megatron.evaluate.report.text_table import result_lines, unanswered_lines
    from acc_megatron.evaluate.runner import check_complete, evaluate
    from acc_megatron.evaluate.settings import GENERATED, endpoint_run

    if list_tasks:
        _print_tasks(as_json)
        return
    if out is None:
        raise ConfigError("--out FOLDER is missing: the results and the answers are kept there")
    if endpoint is not None and "=" in str(target or ""):  # without a RUN the first setting stands in its place
        overrides, target = [str(target), *(overrides or [])], None
    if (target is None) == (endpoint is None):
        raise ConfigError("give a RUN (a TOML file or an HF_DIR), or --endpoint URL with --model NAME: one of the two")
    changes = [*(overrides or [])]
    changes += [f"{key}={value}" for key, value in (("limit", limit), ("seed", seed)) if value is not None]
    options = {"items": items, "length_tokens": length_tokens, "max_new_tokens": max_new_tokens}
    given = {name: value for name, value in options.items() if value is not None}
    if target is None:
        assert endpoint is not None
        if not model:
            raise ConfigError("--endpoint needs --model NAME, the name of a model there")
        names = [name for text in task or [",".join(GENERATED)] for name in text.split(",") if name]
        run = endpoint_run(
            endpoint, model, names, window_tokens=window_tokens, **(_FOLDER_DEFAULTS | given), overrides=changes
        )
    elif model or task or window_tokens:
        raise ConfigError("--model, --task and --window-tokens belong to --endpoint URL; a RUN states its own")
    else:
        run = _run_of_target(target, given, changes)
    results = evaluate(
        run, out, compare_with=compare_with or [], show=lambda line: print(line, file=sys.stderr, flush=True)
    )
    if as_json:
        print(json.dumps(results["benchmarks"]))
    else:
        print("\n".join([*result_lines(results), *unanswered_lines(results), str(out / "report.html")]))
    check_complete(results)
    if not compare_with:
        say_next("eval", "RUN", "--out", "FOLDER", "--compare-with", out, when="to compare another model with this")


def _run_of_target(target: Path, given: dict[str, int], changes: list[str]) -> "RunSettings":
    """The run of a TOML file, or of a model folder with the options in `given`."""
    from acc_megatron.evaluate.settings import folder_run, load_run

    if target.is_dir():
        return folder_run(target, **(_FOLDER_DEFAULTS | given), overrides=changes)
    if given:
        first = next(iter(given))
        raise ConfigError(
            f"--{first.replace('_', '-')} is for an HF_DIR; for a RUN set it for each benchmark: "
            f"benchmarks.NAME.{first}=VALUE"
        )
    return load_run(target, changes)


def _print_tasks(as_json: bool) -> None:
    """The names that --task takes, one a line; lm-eval's are too many to describe."""
    from acc_megatron.evaluate.benchmarks.registry import BENCHMARKS
    from acc_megatron.evaluate.settings import GENERATED
    from acc_megatron.optional import install_command, is_installed

    known = {name: f"generated at any length; metric {BENCHMARKS[name].headline}" for name in GENERATED}
    if as_json:
        print(json.dumps(known))
        return
    for name, meaning in known.items():
        print(f"{name:<12} {meaning}")
    if is_installed("lm_eval"):
        print("lm-eval      each of its tasks by its name, if it generates text; 'lm-eval ls tasks' lists them")
    else:
        print(f"lm-eval      each of its tasks by its name, after {install_command('lm_eval')}")
