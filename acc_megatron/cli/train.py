"""The verbs that make a model: train, import, export."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from acc_megatron.cli.options import Json, Out, Overrides, Recipe, TokenizerName, print_result

verbs = typer.Typer()
Precision = Literal["float32", "bfloat16"]


@verbs.command(short_help="Train on a dataset folder; resumes by itself.")
def train(
    config: Recipe,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train on a dataset folder, alone or under torchrun; resumes its run folder by itself."""
    from acc_megatron.compatibility import check_job
    from acc_megatron.config import difference, load_config
    from acc_megatron.ranks import is_rank_zero, world_size

    resolved = load_config(config, overrides or [])
    check_job(resolved, world_size())
    if is_rank_zero():
        for line in difference(resolved, load_config(config)):
            print(f"override: {line}", file=sys.stderr)
    from acc_megatron.train import train as run

    result = run(resolved)
    if is_rank_zero():
        print_result(result, as_json)


@verbs.command(name="import", short_help="A Hugging Face folder to a checkpoint.")
def import_(
    hf_dir: Annotated[Path, typer.Argument(metavar="HF_DIR", help="A Hugging Face Qwen3-MoE folder.")],
    out: Out,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[PARALLEL.KEY=VALUE...]")] = None,
    config: Annotated[Path | None, typer.Option(help="A recipe whose [parallel] the import is shared out by.")] = None,
    precision: Annotated[Precision, typer.Option(help="What the weights are kept in.")] = "bfloat16",
    as_json: Json = False,
) -> None:
    """Hugging Face safetensors to a checkpoint that any layout can start from; alone or under torchrun."""
    from acc_megatron.checkpoint.exchange import import_folder
    from acc_megatron.config import load_parallel
    from acc_megatron.ranks import is_rank_zero

    result = import_folder(hf_dir, out, precision, load_parallel(config, overrides or []))
    if is_rank_zero():
        print_result(result, as_json)


@verbs.command(short_help="A checkpoint to a Hugging Face folder.")
def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint, or a run folder.")],
    out: Out,
    tokenizer: TokenizerName = "qwen3",
    precision: Annotated[Precision | None, typer.Option(help="As saved unless given.")] = None,
    experts: Annotated[
        Literal["single", "fused"] | None,
        typer.Option(help="A tensor an expert, or a layer; as imported unless given."),
    ] = None,
    max_file_gb: Annotated[
        float | None, typer.Option(min=0.0, help="Cut the weights anew; else as imported, or 4 GB a file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """A checkpoint of any layout to a Hugging Face folder; alone or under torchrun."""
    from acc_megatron.checkpoint.exchange import export_folder
    from acc_megatron.data_tools.tokenizer import load_tokenizer
    from acc_megatron.ranks import is_rank_zero

    result = export_folder(
        checkpoint,
        out,
        load_tokenizer(tokenizer),
        precision=precision,
        experts=experts,
        max_file_bytes=round(max_file_gb * 1e9) if max_file_gb else None,
    )
    if is_rank_zero():
        print_result(result, as_json)
