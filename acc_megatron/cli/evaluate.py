"""The verbs that look at a model: eval."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from acc_megatron.cli.options import Json, Out

verbs = typer.Typer()


@verbs.command(name="eval", short_help="Ask an exported model long-context questions.")
def eval_(
    hf_dir: Annotated[Path, typer.Argument(metavar="HF_DIR", help="An exported model.")],
    out: Out,
    benchmark: Annotated[list[str] | None, typer.Option(help="graphwalks, mrcr; repeatable. Default: both.")] = None,
    items: Annotated[int, typer.Option(help="Questions of each benchmark.")] = 8,
    length_tokens: Annotated[int, typer.Option(help="Length of a question.")] = 4096,
    max_new_tokens: Annotated[int, typer.Option(help="Longest response.")] = 512,
    seed: Annotated[int, typer.Option(help="Seed of the generated questions.")] = 0,
    template: Annotated[str, typer.Option(help="qwen3 or qwen3-thinking-2507.")] = "qwen3",
    as_json: Json = False,
) -> None:
    """Ask an exported model generated GraphWalks and MRCR questions, and grade its answers."""
    from acc_megatron.evaluate.runner import BENCHMARKS, evaluate_folder

    results = evaluate_folder(
        hf_dir,
        out,
        benchmarks=benchmark or list(BENCHMARKS),
        num_items=items,
        length_tokens=length_tokens,
        seed=seed,
        max_new_tokens=max_new_tokens,
        template=template,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if as_json:
        print(json.dumps(results["benchmarks"]))
        return
    for name, scores in results["benchmarks"].items():
        means = "  ".join(f"{metric} {value:.3f}" for metric, value in scores["means"].items())
        print(f"{name:<12} {scores['num_items']} items  {means}")
