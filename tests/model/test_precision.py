"""Precisions and FP8 recipes, compared with the installed megatron-core and Transformer Engine's published wheel."""

import ast
import importlib.util
from pathlib import Path

import pytest
from support.commands import ROOT
from support.engine_wheel import arguments, definition

from acc_megatron.config import Fp8Config, load_config
from acc_megatron.model.families import FAMILIES
from acc_megatron.model.precision import PRECISIONS, ddp_fields, optimizer_fields, transformer_fields

FP8 = [name for name, precision in PRECISIONS.items() if precision.recipe]
EVERYTHING = Fp8Config(bf16_layers_at_start=1, bf16_layers_at_end=1, param_gather=True)


def megatron_source(module: str) -> ast.Module:
    spec = importlib.util.find_spec("megatron")  # a namespace package: finding it imports nothing
    assert spec is not None and spec.submodule_search_locations
    file = Path(*module.split(".")[1:]).with_suffix(".py")
    roots = [Path(root) for root in spec.submodule_search_locations]
    return ast.parse(next(root / file for root in roots if (root / file).is_file()).read_text())


def fields(module: str, *classes: str) -> dict[str, str]:
    """Return the annotations of megatron-core's dataclasses by field, without importing them."""
    return {
        node.target.id: ast.unparse(node.annotation)
        for found in megatron_source(module).body
        if isinstance(found, ast.ClassDef) and found.name in classes
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


@pytest.mark.parametrize("precision", FP8)
def test_every_field_name_exists_in_the_installed_megatron(precision: str) -> None:
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


def test_precisions_without_fp8_set_no_fp8_fields() -> None:
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
    assert default == f"Format.{recipe.default_format.upper()}"


@pytest.mark.parametrize("precision", FP8)
def test_megatron_passes_exactly_these_arguments_to_the_recipe(precision: str) -> None:
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


def test_the_alignment_of_expert_tokens_is_the_one_of_megatron() -> None:
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


def test_the_quantised_dims_are_those_of_the_matrices_of_the_model() -> None:
    config = load_config(ROOT / "tests" / "support" / "recipe_30b.toml")
    # Qwen3-30B-A3B has linear_qkv 5120 x 2048, linear_proj 2048 x 4096 and experts of width 768; TP 2 splits two
    dims = FAMILIES[config.model.family].quantised_dims(config.model, config.parallel)
    assert [size for _, size in dims] == [2048, 2560, 2048, 768]
