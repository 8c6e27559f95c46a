"""A checkpoint's forward pass over tasks, watched from hooks: no gradient, no vocabulary head."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from acc_megatron.distributed import process_groups  # first: it makes megatron run without CUDA

# isort: split
import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.packed_seq_params import PackedSeqParams

from acc_megatron.analyze.tasks import Slice, Task, document_slice
from acc_megatron.checkpoint import locate, store
from acc_megatron.config import ParallelConfig, model_config_from_dict
from acc_megatron.errors import ConfigError
from acc_megatron.layout import Layout
from acc_megatron.model.qwen3_moe import build_model
from acc_megatron.model.transformer_config import DTYPES, transformer_config
from acc_megatron.ranks import say


class Observer(Protocol):
    """What watches a model: `attach` puts hooks on it, `document` says which slice passes next."""

    def attach(self, model: GPTModel) -> None:
        """Put hooks on the model's layers."""

    def document(self, task: str, document: Slice) -> None:
        """The next forward pass is over this slice of a document of this task."""

    def result(self) -> dict[str, list[dict[str, Any]]]:
        """By task, by layer: what was seen, over all ranks; collective, equal on every rank."""


def observe(
    checkpoint: Path, tasks: list[Task], parallel: ParallelConfig, make_observer: Callable[[Layout], Observer]
) -> dict[str, list[dict[str, Any]]]:
    """What an observer sees of a checkpoint, by task and layer.

    Runs a checkpoint, saved under any layout, over every document of every task; collective under torchrun.

    Tensor, context and expert parallelism work; data-parallel ranks repeat one another. Raises ConfigError for a
    pipeline, CheckpointError for a damaged checkpoint.
    """
    if parallel.pipeline > 1:
        raise ConfigError(f"analyze needs parallel.pipeline = 1, not {parallel.pipeline}")
    source = locate.find(checkpoint)
    state = store.read_state(source)
    config = model_config_from_dict(state["model"], str(source / locate.STATE))
    precision = "bfloat16" if torch.cuda.is_available() else "float32"
    with process_groups(parallel) as layout:
        transformer = transformer_config(config, layout, precision=precision)
        transformer.perform_initialization = False
        model = build_model(config, transformer).to(torch.cuda.current_device(), DTYPES[precision]).eval()
        store.load(source, [model], None)
        observer = make_observer(layout)
        observer.attach(model)
        rank = parallel_state.get_context_parallel_rank()
        with torch.no_grad():
            for task in tasks:
                for number in task.documents:
                    document = document_slice(task, number, layout, rank)
                    observer.document(task.name, document)
                    _forward(model, document)
                say(f"{source.parent.name}/{source.name}: {task.name}, {len(task.documents)} documents")
        return observer.result()


def _forward(model: GPTModel, document: Slice) -> None:
    device = torch.cuda.current_device()
    bounds = torch.tensor([0, document.padded_tokens], dtype=torch.int32, device=device)
    length = document.padded_tokens
    packed = PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, max_seqlen_q=length, max_seqlen_kv=length
    )
    model(
        document.tokens[None].to(device),
        document.positions[None].to(device),
        None,
        packed_seq_params=packed,
        output_processor=_hidden_states,
    )


def _hidden_states(*, hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
    return hidden_states


def check_comparable(checkpoints: dict[str, Path], tasks: list[Task]) -> None:
    """Raise ConfigError where checkpoints are of other shapes than the first, or a task has tokens that one lacks."""
    models = {name: store.read_state(locate.find(path))["model"] for name, path in checkpoints.items()}
    first = next(iter(models))
    for name, model in models.items():
        for key in ("num_hidden_layers", "num_attention_heads", "num_experts"):
            if model[key] != models[first][key]:
                raise ConfigError(
                    f"{name} has model.{key} {model[key]} and {first} has {models[first][key]}: layer by layer only "
                    f"checkpoints of one shape can be compared; {name} is {checkpoints[name]}"
                )
        for task in tasks:
            tokenizer = task.dataset.manifest["tokenizer"]
            if tokenizer["vocab_size"] > model["vocab_size"]:
                raise ConfigError(
                    f"{name} has {model['vocab_size']:,} token embeddings and task {task.name} was converted with "
                    f"tokenizer {tokenizer['name']} of {tokenizer['vocab_size']:,}; convert it with the one that "
                    f"{checkpoints[name]} was trained with"
                )


def trained(checkpoint: Path) -> dict[str, Any]:
    """Where a checkpoint lies and on how many tokens it was trained: steps x rows x row length, padding included.

    `trained_tokens` is null for one that was imported, or saved by no run of ours.
    """
    source = locate.find(checkpoint)
    state = store.read_state(source)
    factors = [state.get(key) for key in ("step", "global_batch_rows", "seq_length_tokens")]
    return {"path": str(source), "trained_tokens": math.prod(factors) if all(factors) else None}


def layers(model: GPTModel) -> Iterator[tuple[int, Any]]:
    """(number from 0, transformer layer) in order."""
    yield from enumerate(model.decoder.layers)
