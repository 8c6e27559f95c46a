"""The commands that make a dataset folder: in one process, in several, or in parts that are merged."""

import os
from pathlib import Path
from typing import Annotated

import typer

from acc_megatron.cli.options import (
    Inputs,
    Json,
    MaxBad,
    Out,
    Shard,
    TokenizerName,
    Workers,
    is_replaced,
    print_counts,
    print_result,
    say_next,
)
from acc_megatron.data_tools.convert.templates.registry import TEMPLATES
from acc_megatron.errors import ConfigError

verbs = typer.Typer()


def _template_help() -> str:
    known = "; ".join(f"{name}: {template.summary}" for name, template in TEMPLATES.items())
    return f"Chat template. {known}."


@verbs.command(short_help="Convert triples to Megatron indexed binaries.")
def convert(
    inputs: Inputs,
    out: Out,
    tokenizer: TokenizerName = "qwen3",
    template: Annotated[str, typer.Option(help=_template_help())] = "qwen3",
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Longer documents are dropped and counted, never cut.")
    ] = 131_072,
    workers: Workers = 1,
    max_bad: MaxBad = 0.01,
    engine: Annotated[
        str, typer.Option(help="gigatoken, tiktoken, or auto: gigatoken if it is installed. The output is the same.")
    ] = "auto",
    shard: Shard = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Make the shards on a Ray cluster.")] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=NUMBER",
            help="Use the rows of an input this often: with 2.5 each row twice, and every second row a third time. "
            "Repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert triples, chats, or rows of the published ACC dataset to Megatron indexed binaries with loss masks."""
    from acc_megatron.data_tools.convert import convert as conversion
    from acc_megatron.data_tools.sharding.job_part import parse_part

    weights = _parse_weights(weight or [])
    settings = conversion.ConvertSettings(tokenizer=tokenizer, template=template, max_tokens=max_tokens)
    if shard is not None and ray is not None:
        raise ConfigError(
            "--shard makes a part on this machine, --ray makes all shards on a cluster: give only one of them"
        )
    if shard is not None:
        part = parse_part(shard, os.environ)
        made = conversion.convert_part(
            inputs, out, settings, part=part, num_workers=workers, engine=engine, weights=weights
        )
        print_result(made, as_json)
        say_next("merge", out, when="after all parts")
        return
    runner = None
    if ray is not None:
        from acc_megatron.data_tools.convert.ray_shards import on_ray

        runner = on_ray(ray)
    old = out if is_replaced(out) else None
    manifest = conversion.convert(
        inputs,
        out,
        settings,
        num_workers=workers,
        max_bad_share=max_bad,
        engine=engine,
        runner=runner,
        weights=weights,
    )
    print_counts(manifest, out, as_json)
    say_next("train", "CONFIG", f"data.path={out}", replaced=old)


def _parse_weights(texts: list[str]) -> dict[Path, float]:
    weights = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            weights[Path(name)] = float(number)
        except ValueError:
            raise ConfigError(f"--weight must be INPUT=NUMBER, such as chats.jsonl=0.5, got {text!r}") from None
    return weights


@verbs.command(short_help="Merge the parts of a compile or a conversion.")
def merge(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of 'compile --shard' or 'convert --shard'.")],
    max_bad: MaxBad = 0.01,
    as_json: Json = False,
) -> None:
    """Publish a folder of triples or a dataset folder from the shards that the jobs with --shard have made."""
    from acc_megatron.data_tools.compile import merge as of_compile
    from acc_megatron.data_tools.convert import merge as of_convert

    is_compile = of_compile.is_compile(out)
    run = of_compile.merge if is_compile else of_convert.merge
    print_counts(run(out, max_bad_share=max_bad), out, as_json)
    if is_compile:
        say_next("convert", out, "--out", "DATASET")
    else:
        say_next("train", "CONFIG", f"data.path={out}")
