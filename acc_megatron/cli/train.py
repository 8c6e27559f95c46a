"""The commands that make a model: train, import, export."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from acc_megatron.cli.options import Json, Out, Overrides, Recipe, TokenizerName, print_result, say_next
from acc_megatron.errors import ConfigError

if TYPE_CHECKING:
    from acc_megatron.config import ParallelConfig

verbs = typer.Typer()
Precision = Literal["float32", "bfloat16"]


@verbs.command(short_help="Train on a dataset folder; resumes automatically.")
def train(
    config: Recipe,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train on a dataset folder, in one process or under torchrun; resumes if the run folder has a checkpoint."""
    from acc_megatron.compatibility import check_job
    from acc_megatron.config import difference, load_config
    from acc_megatron.mesh.engine_variables import offload_modules_only
    from acc_megatron.mesh.torchrun_environment import is_rank_zero, world_size

    resolved = load_config(config, overrides or [])
    _check_started_by_torchrun(resolved.parallel, config, overrides or [])
    check_job(resolved, world_size())
    if is_rank_zero():
        for line in difference(resolved, load_config(config)):
            print(f"override: {line}", file=sys.stderr)
    offload_modules_only(resolved.memory.offload_modules)
    from acc_megatron.training.train import train as run

    result = run(resolved)
    if is_rank_zero():
        print_result(dict(result), as_json)


def _check_started_by_torchrun(parallel: "ParallelConfig", config: Path, overrides: list[str]) -> None:
    """Raise ConfigError with the torchrun line if one process was started for a layout of several."""
    from acc_megatron.mesh.layout import smallest_world
    from acc_megatron.mesh.torchrun_environment import is_under_torchrun

    world = smallest_world(parallel)
    if world > 1 and not is_under_torchrun():
        command = shlex.join(["acc_megatron", "train", str(config), *overrides])
        raise ConfigError(
            f"the layout of {config} needs {world} processes or a multiple of it, and this is one; start\n"
            f"  torchrun --nproc-per-node {world} -m {command}"
        )


@verbs.command(name="import", short_help="Convert a Hugging Face folder to a checkpoint.")
def import_(
    hf_dir: Annotated[
        Path, typer.Argument(metavar="HF_DIR", help="A Hugging Face folder with a Qwen3 or Qwen3-MoE model.")
    ],
    out: Out,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[PARALLEL.KEY=VALUE...]")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A recipe; its [parallel] says how the ranks divide the import.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="The dtype of the checkpoint.")] = "bfloat16",
    base: Annotated[
        Path | None,
        typer.Option(help="For a PEFT folder: the folder or checkpoint of its base; default: the one that it names."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert Hugging Face safetensors to a checkpoint for any layout, in one process or under torchrun.

    A PEFT folder becomes the checkpoint of an adapter, for adapter.init_from.
    """
    from acc_megatron.checkpoint.import_adapter import import_adapter, is_peft_folder
    from acc_megatron.checkpoint.import_folder import import_folder
    from acc_megatron.config import load_parallel
    from acc_megatron.mesh.torchrun_environment import is_rank_zero

    if is_peft_folder(hf_dir):
        print_result(dict(import_adapter(hf_dir, out, precision, base)), as_json)
        say_next("train", "CONFIG", f"adapter.init_from={out}")
        return
    if base is not None:
        raise ConfigError(f"--base {base}: {hf_dir} is not a PEFT folder")
    result = import_folder(hf_dir, out, precision, load_parallel(config, overrides or []))
    if is_rank_zero():
        print_result(dict(result), as_json)
        say_next("train", "CONFIG", f"train.init_from={out}")


@verbs.command(short_help="Convert a checkpoint to a Hugging Face folder.")
def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint, or a run folder.")],
    out: Out,
    tokenizer: TokenizerName = "qwen3",
    precision: Annotated[Precision | None, typer.Option(help="The dtype of the weights; default: as saved.")] = None,
    experts: Annotated[
        Literal["single", "fused"] | None,
        typer.Option(help="One tensor per expert, or one for all experts of a layer; default: as imported."),
    ] = None,
    max_file_gb: Annotated[
        float | None,
        typer.Option(min=0.0, help="Size of a weights file; default: files as imported, or 4 GB each."),
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write the adapter of the checkpoint as a PEFT folder.")
    ] = False,
    merge: Annotated[bool, typer.Option("--merge", help="Add the adapter of the checkpoint to its base.")] = False,
    base: Annotated[
        Path | None, typer.Option(help="With --merge: the checkpoint of the base; default: the one that it names.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint of any layout to a Hugging Face folder, in one process or under torchrun."""
    from acc_megatron.checkpoint import locate
    from acc_megatron.checkpoint.export_adapter import export_adapter
    from acc_megatron.checkpoint.export_folder import export_folder
    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer
    from acc_megatron.mesh.torchrun_environment import is_rank_zero

    if adapter and merge:
        raise ConfigError("--adapter writes the adapter alone, --merge adds it to its base: give only one of them")
    if base is not None and not merge:
        raise ConfigError(f"--base {base} needs --merge")
    if adapter:
        print_result(dict(export_adapter(checkpoint, out, precision)), as_json)
        return
    factors = locate.find(checkpoint) if merge else None
    if factors is not None:
        checkpoint = base or locate.base_of(factors)
    result = export_folder(
        checkpoint,
        out,
        load_tokenizer(tokenizer),
        precision=precision,
        experts=experts,
        max_file_bytes=round(max_file_gb * 1e9) if max_file_gb else None,
        adapter=factors,
    )
    if is_rank_zero():
        print_result(dict(result), as_json)
        say_next("eval", out, "--out", "SCORES")
