"""The table of precisions against the installed megatron-core and Transformer Engine's published wheel."""

import ast
import importlib.util
from pathlib import Path

import pytest
from commands import ROOT
from engine_wheel import arguments, definition

from acc_megatron.config import Fp8Config, load_config
from acc_megatron.model.precision import PRECISIONS, ddp_fields, optimizer_fields, quantised_dims, transformer_fields

FP8 = [name for name, precision in PRECISIONS.items() if precision.recipe]
EVERYTHING = Fp8Config(bf16_layers_at_start=1, bf16_layers_at_end=1, param_gather=True)


def megatron_source(module: str) -> ast.Module:
    spec = importlib.util.find_spec("megatron")  # a namespace: naming it imports nothing
    assert spec is not None and spec.submodule_search_locations
    file = Path(*module.split(".")[1:]).with_suffix(".py")
    roots = [Path(root) for root in spec.submodule_search_locations]
    return ast.parse(next(root / file for root in roots if (root / file).is_file()).read_text())


def fields(module: str, *classes: str) -> dict[str, str]:
    """field -> annotation of megatron-core's dataclasses, read without importing them."""
    return {
        node.target.id: ast.unparse(node.annotation)
        for found in megatron_source(module).body
        if isinstance(found, ast.ClassDef) and found.name in classes
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


@pytest.mark.parametrize("precision", FP8)
def test_every_field_name_is_one_of_the_installed_megatron(precision: str) -> None:
    core = "megatron.core"
    transformer = fields(f"{core}.transformer.transformer_config", "TransformerConfig")
    ddp = fields(f"{core}.distributed.distributed_data_parallel_config", "DistributedDataParallelConfig")
    optimizer = fields(f"{core}.optimizer.optimizer_config", "OptimizerConfig")
    values = transformer_fields(precision, EVERYTHING, dispatcher="alltoall")
    assert values["moe_router_padding_for_quantization"] is True and values["first_last_layers_bf16"] is True
    assert set(values) <= set(transformer) and len(values) >= 7
    assert repr(values["fp8_recipe"]) in transformer["fp8_recipe"] and repr(values["fp8"]) in transformer["fp8"]
    assert set(ddp_fields(precision, EVERYTHING)) <= set(ddp) and ddp_fields(precision, EVERYTHING)["fp8_param_gather"]
    assert set(optimizer_fields(precision, EVERYTHING)) <= set(optimizer)


def test_precisions_without_fp8_set_none_of_its_fields() -> None:
    for precision in set(PRECISIONS) - set(FP8):
        made = (
            transformer_fields(precision, Fp8Config(), dispatcher="alltoall"),
            ddp_fields(precision, Fp8Config()),
            optimizer_fields(precision, Fp8Config()),
        )
        assert made == ({}, {}, {})


@pytest.mark.parametrize("precision", FP8)
def test_every_recipe_class_and_argument_is_in_the_published_wheel(precision: str) -> None:
    recipe = PRECISIONS[precision].recipe
    assert recipe is not None
    taken = arguments("common/recipe/__init__.py", recipe.engine_class)
    assert set(recipe.engine_arguments) <= set(taken)
    found = definition("common/recipe/__init__.py", recipe.engine_class)
    assert found is not None
    default = next(
        ast.unparse(node.value)
        for node in found.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "fp8_format" and node.value is not None
    )
    assert default == f"Format.{recipe.format.upper()}", "the recipe's own format is ours"


@pytest.mark.parametrize("precision", FP8)
def test_megatron_makes_that_recipe_of_those_arguments(precision: str) -> None:
    recipe = PRECISIONS[precision].recipe
    assert recipe is not None
    name = "TEDelayedScaling" if precision == "fp8_delayed" else recipe.engine_class
    module = "extensions.transformer_engine" if precision == "fp8_delayed" else "fp8_utils"
    calls = {
        ast.unparse(node.func).split(".")[-1]: {keyword.arg for keyword in node.keywords if keyword.arg}
        for node in ast.walk(megatron_source("megatron.core.fp8_utils"))
        if isinstance(node, ast.Call)
    }
    if precision == "fp8_delayed":
        wrapper = next(
            node
            for node in megatron_source(f"megatron.core.{module}").body
            if isinstance(node, ast.ClassDef) and node.name == name
        )
        text = ast.unparse(wrapper)
        assert all(argument in text for argument in recipe.engine_arguments), text
        assert calls[name] == {"config", "fp8_format", "override_linear_precision"}
    else:
        assert calls[name] == set(recipe.engine_arguments)


def test_the_alignment_of_expert_tokens_is_megatrons() -> None:
    source = ast.unparse(
        next(
            node
            for node in megatron_source("megatron.core.fp8_utils").body
            if isinstance(node, ast.FunctionDef) and node.name == "get_fp8_align_size"
        )
    )
    assert "Fp8Recipe.mxfp8:\n        return 32\n    else:\n        return 16" in source
    aligned = {name: precision.recipe.alignment_tokens for name, precision in PRECISIONS.items() if precision.recipe}
    assert aligned == {name: 32 if name == "fp8_mxfp8" else 16 for name in FP8}


def test_the_dims_are_those_of_the_models_matrices() -> None:
    config = load_config(ROOT / "examples" / "qwen3_30b_a3b_128k_h100.toml")
    # linear_qkv of Qwen3-30B-A3B is 5120 x 2048, linear_proj 2048 x 4096, experts 768 wide; TP 2 halves the first two
    assert [size for _, size in quantised_dims(config)] == [2048, 2560, 2048, 768]
