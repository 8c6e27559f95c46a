"""Freezing the base and attaching factors to the layers of a rank's part of a model."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel

from acc_megatron.adapter.factors import EmbeddingFactors, Factors, HeadFactors, Matrix, Place, RouterFactors
from acc_megatron.adapter.parts import part_of, targets, trained_parts
from acc_megatron.config import AdapterConfig, Config
from acc_megatron.mesh.layout import Layout
from acc_megatron.mesh.process_groups import own_ranks
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.weight_map import Entry

ADAPTERS = "adapters"  # the name of the factors in a model chunk
Named = dict[str, list[tuple[str, Entry]]]


def prepare_parameters(config: Config, layout: Layout, chunks: list[GPTModel]) -> None:
    """Freeze what the settings do not train, and attach factors to the targets of the adapter.

    Call it before the chunks are wrapped for data parallelism, which reads what is trained.
    """
    trained, targeted = trained_parts(config), targets(config)
    for chunk in chunks:
        names = dict(_entries(config, layout, chunk))
        parameters = dict(chunk.named_parameters())
        for name, entry in names.items():
            parameters[name].requires_grad_(not {part_of(hf) for hf in entry.hf_names}.isdisjoint(trained))
        if chunk.pre_process:
            chunk.embedding.register_forward_hook(_with_gradient)
        if targeted:
            # a checkpoint of the adapter has these weights too
            chunk.trained_in_full = {
                name: (entry.hf_names[0], entry.split)
                for name, entry in names.items()
                if parameters[name].requires_grad
            }
            setattr(chunk, ADAPTERS, torch.nn.ModuleDict(dict(_attach(config, layout, chunk, names, targeted))))


def factors_of(chunk: torch.nn.Module) -> dict[str, Factors]:
    """Return the factors of a chunk by their name in it; none without an adapter."""
    chunk = getattr(chunk, "module", chunk)  # bfloat16 models are wrapped
    found: Any = getattr(chunk, ADAPTERS, {})
    return dict(found.items())


def _entries(config: Config, layout: Layout, chunk: GPTModel) -> Iterator[tuple[str, Entry]]:
    model = config.model
    weights = FAMILIES[model.family].weight_map(model)
    first_layer = chunk.decoder.layers[0].layer_number - 1
    first_expert = own_ranks().expert * (model.num_experts // layout.expert)
    for name, _ in chunk.named_parameters():
        yield name, weights.entry(name, first_layer=first_layer, first_expert=first_expert)


def _with_gradient(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
    """Let gradients flow from the first layer on: recomputation and pipelines stop where nothing needs them."""
    if output.requires_grad or not torch.is_grad_enabled():
        return output
    return _NeedsGradient.apply(output, torch.empty(0, device=output.device, requires_grad=True))


class _NeedsGradient(torch.autograd.Function):
    """The tensor as the output of a node that drops its gradient; a leaf would keep it after the step."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, None]:
        return None, None


def _attach(
    config: Config, layout: Layout, chunk: GPTModel, names: dict[str, Entry], targeted: frozenset[str]
) -> Iterator[tuple[str, Factors]]:
    """Yield the factors by a name without dots, after each was hooked to its layer."""
    build = partial(_build, config, layout)
    experts: Named = {}
    for name, entry in names.items():
        if not any(part_of(hf) in targeted for hf in entry.hf_names):
            continue
        if ".experts." in name:
            layer, _, rest = name.partition(".experts.")
            matrix = "linear_fc1" if "linear_fc1" in rest else "linear_fc2"
            experts.setdefault(f"{layer}.experts.{matrix}", []).append((name, entry))
            continue
        module = chunk.get_submodule(name.removesuffix(".weight"))
        part = part_of(entry.hf_names[0])
        kind = {"router": RouterFactors, "embeddings": EmbeddingFactors, "head": HeadFactors}.get(part, Factors)
        factors = build(entry, targeted, kind=kind)
        _HOOKS.get(kind, _hook_linear)(module, factors)
        yield name.removesuffix(".weight").replace(".", "_"), factors
    for name, members in experts.items():
        factors = build(members[0][1], targeted, num_local_experts=len(members))
        path, _, matrix = name.rpartition(".")
        module = chunk.get_submodule(path)
        if hasattr(module, "local_experts"):
            for number, expert in enumerate(module.local_experts):
                _hook_linear(getattr(expert, matrix), partial(factors, expert=number))
        else:
            _hook_grouped(getattr(module, matrix), factors)
        yield name.replace(".", "_"), factors


def _build(
    config: Config,
    layout: Layout,
    entry: Entry,
    targeted: frozenset[str],
    *,
    kind: type[Factors] = Factors,
    num_local_experts: int = 0,
) -> Factors:
    """Build the factors of one Megatron parameter; of the parameters of all local experts if there are some."""
    model, ranks = config.model, own_ranks()
    shapes = FAMILIES[model.family].weight_map(model).shapes()
    is_expert = num_local_experts > 0
    size, rank = (layout.expert_tensor, ranks.expert_tensor) if is_expert else (layout.tensor, ranks.tensor)
    group = (
        parallel_state.get_expert_tensor_parallel_group()
        if is_expert
        else parallel_state.get_tensor_model_parallel_group()
    )
    split = entry.split.dim if entry.split else None
    matrices: list[Matrix | None] = []
    rows = []
    for hf_name in entry.hf_names:
        out, inside = shapes[hf_name]
        rows.append(out // size if split == 0 else out)
        if kind is EmbeddingFactors:
            out, inside = inside, out
        module = hf_name.removesuffix(".weight")
        leaf = module.rpartition(".")[2]
        if is_expert:
            module = f"{module.partition('.experts.')[0]}.experts.{leaf}"
        matrices.append(Matrix(module, (out, inside), leaf) if part_of(hf_name) in targeted else None)
    if kind is EmbeddingFactors:
        split = 1
    experts = (ranks.expert * num_local_experts, model.num_experts) if is_expert else None
    settings: AdapterConfig = config.adapter
    return kind(
        matrices,
        rows,
        entry,
        Place(split, group, rank, size, experts),
        settings,
        seed=config.train.seed,
        num_local_experts=num_local_experts,
    )


def _hook_linear(module: Any, factors: Callable[..., torch.Tensor]) -> None:
    """Add what the factors compute to the first output of a parallel linear layer."""
    if hasattr(module, "return_layernorm_output"):  # Transformer Engine's norm and matrix: the factors need the norm
        module.return_layernorm_output = True
        module.return_layernorm_output_gathered = False

    def add(_: Any, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> tuple[Any, ...]:
        out, bias = outputs
        x = inputs[0]
        if isinstance(out, tuple):
            out, x = out
        return out + factors(x), bias

    module.register_forward_hook(add)


def _hook_grouped(module: torch.nn.Module, factors: Factors) -> None:
    """Add what the factors compute to the output of Transformer Engine's grouped linear layer."""

    def add(_: Any, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> tuple[Any, ...]:
        out, bias = outputs
        return out + factors(inputs[0], splits=inputs[1]), bias

    module.register_forward_hook(add)


def _hook_router(module: Any, factors: Factors) -> None:
    """Add what the factors compute to the logits of a router."""
    gating = module.gating
    module.gating = lambda x: gating(x) + factors(x)


def _hook_embedding(module: torch.nn.Module, factors: Factors) -> None:
    module.register_forward_hook(lambda _, inputs, output: output + factors(inputs[0]))


def _hook_head(module: torch.nn.Module, factors: Factors) -> None:
    """Let the masked head, which multiplies itself, use the sum of weight and factors."""
    object.__setattr__(module, "add_factors", factors)  # not a submodule: the chunk owns it


_HOOKS: dict[type[Factors], Callable[[Any, Factors], None]] = {
    RouterFactors: _hook_router,
    EmbeddingFactors: _hook_embedding,
    HeadFactors: _hook_head,
}
