"""Gradients of a layout's ranks, compared by parameter with the complete gradients of one process."""

from collections.abc import Iterator

import torch

from acc_megatron.mesh.layout import Ranks
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.weight_map import rank_part
from acc_megatron.training.trainer import Trainer


def named_parameters(trainer: Trainer) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Parameter]]:
    """Yield the chunk without its wrappers, the name in it, and each parameter of this rank."""
    for chunk in trainer.models:
        model = getattr(chunk, "module", chunk)  # Float16Module wraps the model once more
        for name, parameter in model.named_parameters():
            yield model, name, parameter


def complete_gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return gradients by Hugging Face name; only for one process, which has every parameter completely."""
    weights = FAMILIES[trainer.config.model.family].weight_map(trainer.config.model)
    gradients: dict[str, torch.Tensor] = {}
    for _, name, parameter in named_parameters(trainer):
        entry = weights.entry(name)
        parts = entry.separate(parameter.main_grad)  # type: ignore[attr-defined]
        gradients |= {hf: part.clone() for hf, part in zip(entry.hf_names, parts, strict=True)}
    return gradients


def gradient_pairs(
    trainer: Trainer, complete: dict[str, torch.Tensor], ranks: Ranks
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield the first Hugging Face name of each parameter, its gradient on this rank, and that part of `complete`."""
    model, layout = trainer.config.model, trainer.layout
    weights = FAMILIES[model.family].weight_map(model)
    first_expert = ranks.expert * (model.num_experts // layout.expert)
    for chunk, name, parameter in named_parameters(trainer):
        first_layer = chunk.decoder.layers[0].layer_number - 1  # type: ignore[union-attr,index]
        entry = weights.entry(name, first_layer=first_layer, first_expert=first_expert)
        tensors = [complete[hf] for hf in entry.hf_names]
        parts = [tensor[rank_part(entry.split, tuple(tensor.shape), layout, ranks)] for tensor in tensors]
        yield entry.hf_names[0], parameter.main_grad, entry.join(*parts)  # type: ignore[attr-defined]
