"""Every model family: config.json, weight map, parameter counts and FLOPs agree with each other."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from support.make_inputs import TINY_DENSE, TINY_MODEL

from acc_megatron.config import ModelConfig, RopeScaling
from acc_megatron.errors import CheckpointError, ConfigError
from acc_megatron.mesh.layout import Layout, Ranks
from acc_megatron.model.divisibility import check_model_divides
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.families.family import ModelFamily
from acc_megatron.model.weight_map import rank_part

FILE = Path("config.json")
MOE, DENSE = (ModelConfig(**(tiny | {"vocab_size": 512, "num_hidden_layers": 3})) for tiny in (TINY_MODEL, TINY_DENSE))
MODELS = {
    "MoE": MOE,
    "MoE, tied": dataclasses.replace(MOE, tie_word_embeddings=True, norm_topk_prob=False),
    "dense": DENSE,
    "dense, tied, YaRN": dataclasses.replace(
        DENSE,
        tie_word_embeddings=True,
        rope_scaling=RopeScaling(factor=4.0, original_max_position_embeddings=256, beta_fast=16.0),
    ),
}
each_model = pytest.mark.parametrize("name", MODELS)


def family(model: ModelConfig) -> ModelFamily:
    return FAMILIES[model.family]


@each_model
def test_config_json_is_read_as_it_was_written(name: str) -> None:
    model = dataclasses.replace(MODELS[name], rope_theta=5e5, rms_norm_eps=1e-5)
    assert family(model).config_from_hf(family(model).config_to_hf(model), FILE) == model


@each_model
def test_the_parameters_of_the_weight_map_are_exactly_the_tensors_of_a_folder(name: str) -> None:
    weights = family(MODELS[name]).weight_map(MODELS[name])
    mapped = [hf for parameter in weights.parameter_names() for hf in weights.entry(parameter).hf_names]
    assert sorted(mapped) == sorted(weights.shapes()) and len(set(mapped)) == len(mapped)


@each_model
def test_joining_and_separating_tensors_are_inverse(name: str) -> None:
    weights = family(MODELS[name]).weight_map(MODELS[name])
    shapes, generator = weights.shapes(), torch.Generator().manual_seed(0)
    for parameter in weights.parameter_names():
        entry = weights.entry(parameter)
        tensors = [torch.randn(shapes[hf], generator=generator) for hf in entry.hf_names]
        separated = entry.separate(entry.join(*tensors))
        assert all(torch.equal(a, b) for a, b in zip(separated, tensors, strict=True)), parameter


@pytest.mark.parametrize("model, split_per_layer", [(MOE, 4 + 3 * MOE.num_experts), (DENSE, 4 + 3)])
def test_the_parts_of_all_ranks_join_to_the_complete_parameter(model: ModelConfig, split_per_layer: int) -> None:
    weights, layout = family(model).weight_map(model), Layout(world=2, tensor=2, expert_tensor=2)
    shapes, generator = weights.shapes(), torch.Generator().manual_seed(0)
    num_split = 0
    for name in weights.parameter_names():
        entry = weights.entry(name)
        tensors = [torch.randn(shapes[hf], generator=generator) for hf in entry.hf_names]
        for tensor in tensors:
            parts = [
                tensor[rank_part(entry.split, tuple(tensor.shape), layout, Ranks(tensor=rank, expert_tensor=rank))]
                for rank in range(2)
            ]
            if entry.split is None:
                assert all(torch.equal(part, tensor) for part in parts), name
            else:
                assert torch.equal(torch.cat(parts, entry.split.dim), tensor), name
                num_split += 1
    assert num_split == 2 + model.num_hidden_layers * split_per_layer


@each_model
def test_parameter_counts_are_those_of_the_tensors(name: str) -> None:
    from acc_megatron.model.parameter_count import num_parameters

    model = MODELS[name]
    assert num_parameters(model) == sum(map(math.prod, family(model).weight_map(model).shapes().values()))


@each_model
def test_active_weights_are_those_of_a_layer_without_its_norms_and_idle_experts(name: str) -> None:
    model = MODELS[name]
    shapes = family(model).weight_map(model).shapes()
    layer = {name: math.prod(shape) for name, shape in shapes.items() if name.startswith("model.layers.0.")}
    norms = sum(size for name, size in layer.items() if "norm" in name)
    experts = sum(size for name, size in layer.items() if ".experts." in name)
    active = experts * model.num_experts_per_tok // max(1, model.num_experts)
    assert family(model).active_layer_weights(model) == sum(layer.values()) - norms - experts + active


REFUSED: dict[str, dict[str, object]] = {
    "use_sliding_window = True": {"use_sliding_window": True},
    "attention_bias = True": {"attention_bias": True},
    "hidden_act = 'gelu'": {"hidden_act": "gelu"},
    "rope_type = 'linear'": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "rope_type = 'longrope'": {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e6}},
    "rope_scaling.short_factor": {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "short_factor": [1.0]}},
    "partial_rotary_factor = 0.5": {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
}


@pytest.mark.parametrize("key", REFUSED)
@pytest.mark.parametrize("model", [MOE, DENSE], ids=["MoE", "dense"])
def test_a_config_that_would_be_trained_differently_is_refused_by_its_key(model: ModelConfig, key: str) -> None:
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{key}"):
        family(model).config_from_hf(family(model).config_to_hf(model) | REFUSED[key], FILE)


def test_a_dense_model_has_neither_experts_nor_axes_of_experts() -> None:
    with pytest.raises(ConfigError, match=r"model\.num_experts = 4: model\.family = 'qwen3' has no experts"):
        FAMILIES["qwen3"].check(dataclasses.replace(DENSE, num_experts=4))
    with pytest.raises(ConfigError, match=r"model\.intermediate_size = 0 must be at least 1"):
        FAMILIES["qwen3"].check(dataclasses.replace(DENSE, intermediate_size=0))
    with pytest.raises(ConfigError, match=r"parallel\.expert = 2 must be 1: model\.family = 'qwen3' has no experts"):
        check_model_divides(DENSE, 1, Layout(world=2, expert=2))
