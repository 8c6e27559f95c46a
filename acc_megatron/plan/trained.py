"""What a run with an adapter or frozen parts trains: parameters of a rank, and the products that its steps need.

A frozen weight has no gradient, no optimizer state and no product for its gradient, and a frozen matrix without factors
saves no input.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from acc_megatron.adapter.parts import part_names, parts_of_model, targets, trained_parts
from acc_megatron.config import Config, ModelConfig
from acc_megatron.mesh.layout import Layout
from acc_megatron.model.parameter_count import num_parameters
from acc_megatron.plan.activations import FLOAT, SavedTensor
from acc_megatron.plan.parameters import Parameters
from acc_megatron.plan.rank_sizes import RankSizes
from acc_megatron.plan.saving import saved_bytes_per_parameter
from acc_megatron.plan.speeds import Speeds


@dataclass(frozen=True, slots=True)
class Matrices:
    """Equal matrices `[out, inside]` of one layer: how many there are, and how many of them a token uses."""

    part: str
    out: int
    inside: int
    split: str  # the dim that tensor parallelism divides: out, inside or none
    number: int = 1
    used: int = 1


def trains_everything(config: Config) -> bool:
    """Return whether a run has neither an adapter nor frozen parts."""
    return not config.adapter.rank and not config.freeze.parts


def trained_parameters(config: Config, layout: Layout, base: Parameters, stage: int) -> Parameters:
    """Return the trained parameters on a rank of a pipeline stage, whose model has the parameters `base`."""
    if trains_everything(config):
        return base
    return _count(config, layout, stage, targets(config), trained_parts(config))


def factor_parameters(config: Config, layout: Layout, stage: int) -> int:
    """Return the parameters of factors on a rank, which it stores next to those of the base."""
    return _count(config, layout, stage, targets(config), frozenset()).total if config.adapter.rank else 0


def _count(config: Config, layout: Layout, stage: int, targeted: frozenset[str], whole: frozenset[str]) -> Parameters:
    """Count the factors of some parts and the weights of others."""
    model, rank, last = config.model, config.adapter.rank, layout.pipeline - 1
    layers = model.num_hidden_layers // layout.pipeline
    tensors: list[tuple[str, int, int]] = []  # dense or experts, size, number
    for matrices in layer_matrices(model):
        kind = "experts" if matrices.part == "experts" else "dense"
        number = layers * (matrices.number // layout.expert if kind == "experts" else matrices.number)
        first, second, weight = _sizes(matrices, rank, layout)
        if matrices.part in targeted:
            tensors += [(kind, first, number), (kind, second, number)]
        elif matrices.part in whole:
            tensors.append((kind, weight, number))
    if "norms" in whole:
        norms = (2 * (model.hidden_size + model.head_dim), layers), (model.hidden_size, int(stage == last))
        tensors += [("dense", size, number) for size, number in norms]
    vocabulary = model.vocab_size // layout.tensor
    copies = int(stage == 0) + int(stage == last and last > 0 and model.tie_word_embeddings)
    for part, number in (("embeddings", copies), ("head", int(stage == last))):
        if part in targeted:
            tensors += [("dense", rank * vocabulary, number), ("dense", rank * model.hidden_size, number)]
        elif part in whole:
            tensors.append(("dense", vocabulary * model.hidden_size, number))
    dense, experts = (
        sum(size * number for kind, size, number in tensors if kind == one) for one in ("dense", "experts")
    )
    return Parameters(dense, experts, max((size for _, size, number in tensors if number), default=0))


def trained_in_all(config: Config) -> int:
    """Return the trained parameters of the complete model, with the factors of an adapter."""
    return trained_parameters(config, Layout(), Parameters(num_parameters(config.model), 0, 0), 0).total


def saved_bytes(config: Config) -> float:
    """Return the bytes of a checkpoint: weights and optimizer state, of an adapter only those that it trains."""
    weight, state = saved_bytes_per_parameter(config)
    trained = trained_in_all(config)
    return weight * (trained if config.adapter.rank else num_parameters(config.model)) + state * trained


def describe_trained(config: Config) -> str:
    """Return what is trained in words; empty if it is everything."""
    whole = trained_parts(config)
    if config.adapter.rank:
        factors = ", ".join(part_names(targets(config)))
        in_full = f" and all weights of {', '.join(part_names(whole))}" if whole else ""
        return f"factors of rank {config.adapter.rank} of {factors}{in_full}"
    return "" if whole == parts_of_model(config.model) else ", ".join(part_names(whole))


def without_frozen(config: Config, tensors: Sequence[SavedTensor], sizes: RankSizes) -> list[SavedTensor]:
    """Return the tensors that a layer saves, without inputs that only the gradient of a frozen matrix needs.

    The output of attention stays: the backward pass of fused attention needs it too.
    """
    if trains_everything(config):
        return list(tensors)
    used = trained_parts(config) | targets(config)
    inner = sizes.expert_tokens * sizes.expert_ffn, sizes.tokens * sizes.ffn
    unused: dict[str, float] = {}  # bytes by name of the tensor
    if "experts" not in used and config.model.num_experts:
        unused = {"experts: input": math.inf, "experts: activation": inner[0] * sizes.element_bytes}
    if "mlp" not in used and not config.model.num_experts:
        unused = {"MLP norm: output": math.inf, "MLP: activation": inner[1] * sizes.element_bytes}
    if used.isdisjoint("qkv"):
        unused["input norm: output"] = math.inf
    if "norms" not in used and not sizes.on_gpu:  # torch saves the normalised input for the weight's gradient
        width = sizes.split_tokens * sizes.hidden
        unused |= dict.fromkeys((f"{norm} norm: float32 copies" for norm in ("input", "expert", "MLP")), width * FLOAT)
        unused["head norms: float32 copies"] = sizes.tokens * (sizes.queries + sizes.keys) * FLOAT
    return [replace(tensor, num_bytes=max(0.0, tensor.num_bytes - unused.get(tensor.name, 0.0))) for tensor in tensors]


def weight_gradient_share(config: Config) -> float:
    """Return the share of a layer's products whose weights are trained; a full backward pass has 1."""
    if trains_everything(config):
        return 1.0
    trained, matrices = trained_parts(config), list(layer_matrices(config.model))
    used = {id(one): one.out * one.inside * one.used for one in matrices}
    return sum(used[id(one)] for one in matrices if one.part in trained) / sum(used.values())


def head_products(config: Config) -> int:
    """Return 1 if the head's weight needs a gradient, itself or for its factors, 0 otherwise."""
    if trains_everything(config):
        return 1
    head = "embeddings" if config.model.tie_word_embeddings else "head"
    return int(head in trained_parts(config) | targets(config))


def factor_seconds(config: Config, layout: Layout, sizes: RankSizes, speeds: Speeds) -> float:
    """Return the seconds of all products of one layer's factors, forward and backward; attention and experts."""
    targeted, rank = targets(config), config.adapter.rank
    flops = 0.0
    for matrices in layer_matrices(config.model):
        if matrices.part in targeted:
            first, second, _ = _sizes(matrices, rank, layout)
            # of an expert's matrices, `used` counts those of all experts of a token; `expert_tokens` counts its copies
            copies = sizes.expert_tokens / sizes.experts_per_token if matrices.part == "experts" else sizes.tokens
            flops += 3 * 2 * copies * matrices.used * (first + second)
    return flops / speeds.gemm.at(sizes.tokens)


def layer_matrices(model: ModelConfig) -> Iterator[Matrices]:
    """Yield the matrices of one layer."""
    hidden, queries = model.hidden_size, model.num_attention_heads * model.head_dim
    keys = model.num_key_value_heads * model.head_dim
    yield Matrices("q", queries, hidden, "out")
    yield Matrices("k", keys, hidden, "out")
    yield Matrices("v", keys, hidden, "out")
    yield Matrices("o", hidden, queries, "inside")
    part, width = ("experts", model.moe_intermediate_size) if model.num_experts else ("mlp", model.intermediate_size)
    number, used = max(1, model.num_experts), max(1, model.num_experts_per_tok)
    yield Matrices(part, width, hidden, "out", 2 * number, 2 * used)
    yield Matrices(part, hidden, width, "inside", number, used)
    if model.num_experts:
        yield Matrices("router", model.num_experts, hidden, "none")


def _sizes(matrices: Matrices, rank: int, layout: Layout) -> tuple[int, int, int]:
    """Return the numbers of A, B and the matrix itself on one rank."""
    size = layout.expert_tensor if matrices.part == "experts" else layout.tensor
    out = matrices.out // size if matrices.split == "out" else matrices.out
    inside = matrices.inside // size if matrices.split == "inside" else matrices.inside
    return rank * inside, rank * out, out * inside
