"""Qwen3-MoE as a model family: the names of its experts, and folders with fused experts."""

import math
from pathlib import Path

import pytest
import torch
from support.make_inputs import TINY_MODEL

from acc_megatron.config import ModelConfig
from acc_megatron.errors import CheckpointError
from acc_megatron.model.families import FAMILIES

FILE = Path("config.json")
FAMILY = FAMILIES["qwen3_moe"]
MODEL = ModelConfig(**(TINY_MODEL | {"vocab_size": 512, "num_hidden_layers": 3}))


def test_a_number_of_experts_is_read_under_both_of_its_names() -> None:
    hf = FAMILY.config_to_hf(MODEL)
    hf["num_local_experts"] = hf.pop("num_experts")
    assert FAMILY.config_from_hf(hf, FILE) == MODEL


def test_a_missing_key_is_refused_by_name() -> None:
    hf = FAMILY.config_to_hf(MODEL)
    del hf["moe_intermediate_size"], hf["head_dim"]
    with pytest.raises(CheckpointError, match=r"config\.json has no head_dim, moe_intermediate_size"):
        FAMILY.config_from_hf(hf, FILE)


def test_first_layer_and_first_expert_are_offsets_of_a_rank() -> None:
    weights = FAMILY.weight_map(MODEL)
    single, grouped = (
        weights.entry(f"decoder.layers.1.mlp.experts.{name}", first_layer=4, first_expert=2).hf_names
        for name in ("local_experts.1.linear_fc2.weight", "linear_fc2.weight1")
    )
    assert single == grouped == ("model.layers.5.mlp.experts.3.down_proj.weight",)


def test_fused_and_single_experts_have_the_same_number_of_values_in_the_same_places() -> None:
    weights = FAMILY.weight_map(MODEL)
    single, fused = weights.shapes(), weights.shapes(is_fused=True)
    assert sum(map(math.prod, single.values())) == sum(map(math.prod, fused.values()))
    filled = {name: torch.zeros(shape, dtype=torch.int8) for name, shape in fused.items()}
    for name, shape in single.items():
        place = weights.fused_place(name)
        if place is None:
            assert fused[name] == shape
            filled[name] += 1
        else:
            filled[place.name][place.expert, place.first_row : place.first_row + shape[0]] += 1
    assert all((tensor == 1).all() for tensor in filled.values()), "every value is stored once"
