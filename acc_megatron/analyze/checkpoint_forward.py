"""Forward passes of a checkpoint over tasks, observed through hooks, without gradients and vocabulary head."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from acc_megatron.mesh.process_groups import process_groups  # first: megatron needs it on a machine without CUDA

# isort: split
import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.packed_seq_params import PackedSeqParams

from acc_megatron.analyze.results_format import CheckpointSource
from acc_megatron.analyze.task_documents import Slice, Task, document_slice
from acc_megatron.checkpoint import locate, store
from acc_megatron.config import ParallelConfig, model_config_from_dict
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.layout import Layout
from acc_megatron.mesh.torchrun_environment import say
from acc_megatron.model.build import build_model
from acc_megatron.model.transformer_config import DTYPES, transformer_config

Layer = TypeVar("Layer")


class Observer(Protocol[Layer]):
    """Collects values of every layer, of type `Layer` in the result, through hooks."""

    def attach(self, model: GPTModel) -> None:
        """Put hooks on the model's layers."""

    def document(self, task: str, document: Slice) -> None:
        """The next forward pass is over this slice of a document of this task."""

    def result(self) -> dict[str, list[Layer]]:
        """The values by task and layer over all ranks; collective and equal on every rank."""


def observe(
    checkpoint: Path, tasks: list[Task], parallel: ParallelConfig, make_observer: Callable[[Layout], Observer[Layer]]
) -> dict[str, list[Layer]]:
    """The observer's result for a checkpoint, by task and layer.

    Runs the checkpoint, saved with any layout, over every document of every task; collective under torchrun. Tensor,
    context and expert parallelism are supported; data-parallel ranks repeat the same work. Raises ConfigError for a
    pipeline and CheckpointError for a damaged checkpoint.
    """
    if parallel.pipeline > 1:
        raise ConfigError(f"parallel.pipeline is {parallel.pipeline}; analyze needs parallel.pipeline = 1")
    source = locate.find(checkpoint)
    state = locate.read_state(source)
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
    """Raise ConfigError if a checkpoint has another shape than the first, or lacks tokens that a task uses."""
    models = {name: locate.read_state(locate.find(path))["model"] for name, path in checkpoints.items()}
    first = next(iter(models))
    for name, model in models.items():
        for key in ("num_hidden_layers", "num_attention_heads", "num_experts"):
            if model[key] != models[first][key]:
                raise ConfigError(
                    f"{name} has model.{key} {model[key]} and {first} has {models[first][key]}: only checkpoints of "
                    f"one shape can be compared layer by layer; {name} is {checkpoints[name]}"
                )
        for task in tasks:
            tokenizer = task.dataset.manifest["tokenizer"]
            if tokenizer["vocab_size"] > model["vocab_size"]:
                raise ConfigError(
                    f"{name} has {model['vocab_size']:,} token embeddings, but task {task.name} was converted with "
                    f"tokenizer {tokenizer['name']} of {tokenizer['vocab_size']:,}; convert the task with the "
                    f"tokenizer that {checkpoints[name]} was trained with"
                )


def source_of(checkpoint: Path) -> CheckpointSource:
    """The path of a checkpoint, and the tokens it was trained on: steps x rows x row length, padding included.

    `trained_tokens` is None for an imported checkpoint or one that was not saved by this program.
    """
    source = locate.find(checkpoint)
    state = locate.read_state(source)
    factors: list[int] = [state.get(key) or 0 for key in ("step", "global_batch_rows", "seq_length_tokens")]
    return {"path": str(source), "trained_tokens": math.prod(factors) if all(factors) else None}


def layers(model: GPTModel) -> Iterator[tuple[int, Any]]:
    """The transformer layers in order, each with its number from 0."""
    yield from enumerate(model.decoder.layers)
