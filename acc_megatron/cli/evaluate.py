"""The verbs that look at a model: eval."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from acc_megatron.cli.options import Json, Out, Overrides
from acc_megatron.errors import ConfigError

verbs = typer.Typer()


@verbs.command(name="eval", short_help="Ask models long-context questions and grade their answers.")
def eval_(
    target: Annotated[Path, typer.Argument(metavar="RUN", help="A TOML file of models and benchmarks, or an HF_DIR.")],
    out: Out,
    overrides: Overrides = None,
    limit: Annotated[
        int | None, typer.Option(help="At most so many rows of each benchmark or lm-eval task, drawn by seed.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of rows, samples and intervals.")] = None,
    beside: Annotated[list[Path] | None, typer.Option(help="Folder of another run to draw beside; repeatable.")] = None,
    items: Annotated[int | None, typer.Option(help="For an HF_DIR: questions of each benchmark (8).")] = None,
    length_tokens: Annotated[int | None, typer.Option(help="For an HF_DIR: length of a question (4096).")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="For an HF_DIR: longest response (512).")] = None,
    as_json: Json = False,
) -> None:
    """Ask models behind endpoints or in folders, grade, and write results.json and report.html; a rerun goes on.

    A folder stands for a run of generated GraphWalks and MRCR on it. Keys of endpoints come from ACC_API_KEY.
    """
    from acc_megatron.evaluate.runner import check_complete, evaluate
    from acc_megatron.evaluate.settings import folder_run, load_run
    from acc_megatron.evaluate.table import result_lines

    changes = [*(overrides or [])]
    changes += [f"{key}={value}" for key, value in (("limit", limit), ("seed", seed)) if value is not None]
    short = {"items": items, "length_tokens": length_tokens, "max_new_tokens": max_new_tokens}
    given = {name: value for name, value in short.items() if value is not None}
    if target.is_dir():
        run = folder_run(
            target, **({"items": 8, "length_tokens": 4096, "max_new_tokens": 512} | given), overrides=changes
        )
    elif given:
        first = next(iter(given)).replace("_", "-")
        raise ConfigError(f"--{first} is for an HF_DIR; a RUN says it for each benchmark, as benchmarks.NAME.KEY=VALUE")
    else:
        run = load_run(target, changes)
    results = evaluate(run, out, beside=beside or [], show=lambda line: print(line, file=sys.stderr, flush=True))
    if as_json:
        print(json.dumps(results["benchmarks"]))
    else:
        print("\n".join([*result_lines(results), str(out / "report.html")]))
    check_complete(results)
