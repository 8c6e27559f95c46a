"""Emulated FP8: what is quantised, agreement of layouts, and drift from float32."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from support.layout_cases import SGD, Case
from support.layout_matrix import Result, run_cases
from support.make_inputs import TINY_MODEL, make_recipe

from acc_megatron.model.fp8.blockwise import BlockScaling
from acc_megatron.model.fp8.current import CurrentScaling
from acc_megatron.model.fp8.delayed import DelayedScaling
from acc_megatron.model.fp8.mxfp8 import Mxfp8
from acc_megatron.model.fp8.recipe import Format, Fp8Recipe, TensorRole

FP8 = ("fp8_delayed", "fp8_current", "fp8_blockwise", "fp8_mxfp8")
# TP 2 splits each matrix at a multiple of 128, so that no block is split
MODEL = TINY_MODEL | {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32}
MODEL |= {"moe_intermediate_size": 32, "tie_word_embeddings": True}


def two_steps(recipe: Path, case: Case, _: Result | None) -> Result:
    """Return the losses of two SGD steps in float32; the second depends on the gradients of the first.

    The case is named `precision/layout`.
    """
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.config import load_config
    from acc_megatron.model import precision, transformer_config
    from acc_megatron.training.resume import restore
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer

    name = case.name.split("/")[0]
    precision.PRECISIONS[name] = dataclasses.replace(precision.PRECISIONS[name], dtype="float32")
    transformer_config.DTYPES[name] = torch.float32
    config = load_config(recipe, [*SGD, f"train.precision={name}", *case.overrides])
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        return Result(losses=[train_step(trainer).loss for _ in range(2)])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("fp8"), **MODEL)


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("precisions", "layouts"),
    [
        pytest.param(["fp8_mxfp8"], ["TP2"], id="mxfp8 in TP2"),
        pytest.param(list(FP8), ["TP2", "EP2"], id="every recipe", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_layouts_agree_if_no_scale_depends_on_values_of_another_rank(
    precisions: list[str], layouts: list[str], recipe: Path
) -> None:
    one = run_cases(recipe, [Case(f"{name}/one", 1) for name in ("float32", *precisions)], None, two_steps)
    settings = {"TP2": ("parallel.tensor=2",), "EP2": ("parallel.expert=2",)}
    cases = [Case(f"{name}/{layout}", 2, settings[layout]) for name in precisions for layout in layouts]
    two = run_cases(recipe, cases, None, two_steps)
    for name in precisions:
        reference = one[f"{name}/one"]
        assert reference.losses != one["float32/one"].losses, f"{name}: eight bits must make a difference"
        for layout in layouts:
            result = two[f"{name}/{layout}"]
            forward, after = (abs(a - b) for a, b in zip(result.losses, reference.losses, strict=True))
            # a difference in the last bit changes a few roundings of the backward pass by 1/16 of the value; with
            # current scaling the scale itself differs, because it is taken over half a weight or over fewer tokens
            assert forward <= (1e-3 if name == "fp8_current" else 1e-5), f"{name} {layout}: {forward}"
            assert after <= (1e-2 if name == "fp8_current" else 2e-3), f"{name} {layout}: {after}"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.distributed
def test_the_drift_of_every_recipe_from_float32_is_bounded(tmp_path: Path) -> None:
    from support.precision_drift import PRECISIONS, curves, drift, make_drift_recipe

    found = curves(make_drift_recipe(tmp_path, 8), 8)
    assert found["float32"][0] - found["float32"][-1] > 1.0
    for precision in PRECISIONS[1:]:
        assert found[precision] != found["float32"]
        mean, largest = drift(found[precision], found["float32"])
        assert mean < 0.01 and largest < 0.05, f"{precision}: {mean:.4f}, {largest:.4f}"


RECIPES: dict[str, tuple[Fp8Recipe, Format]] = {
    "current": (CurrentScaling(), "hybrid"),
    "blockwise": (BlockScaling(), "e4m3"),
    "mxfp8": (Mxfp8(), "e4m3"),
    "delayed": (DelayedScaling(), "hybrid"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_both_operands_of_every_product_are_quantised_along_the_dim_that_it_sums_over(name: str) -> None:
    from acc_megatron.mesh import cpu_backend

    cpu_backend.install()
    from acc_megatron.model.fp8.emulated_linear import Emulation, Operands, product

    recipe, form = RECIPES[name]
    e4m3, backward = torch.float8_e4m3fn, torch.float8_e5m2 if form == "hybrid" else torch.float8_e4m3fn
    scale = torch.tensor(1.0) if recipe.has_history else None
    generator = torch.Generator().manual_seed(0)
    x, weight, cotangent = (torch.randn(shape, generator=generator) for shape in ((40, 1, 96), (80, 96), (40, 1, 80)))

    def q(matrix: torch.Tensor, role: TensorRole, dtype: torch.dtype, along: int) -> torch.Tensor:
        return recipe.quantise(matrix, role, dtype, along=along, scale=scale).double()

    rows, out = x[:, 0], cotangent[:, 0]
    left, right = x.clone().requires_grad_(), weight.clone().requires_grad_()
    actual = product(left, right, Operands(Emulation(recipe, form)))
    actual.backward(cotangent)
    expected = q(rows, "input", e4m3, 1) @ q(weight, "weight", e4m3, 1).T
    torch.testing.assert_close(actual[:, 0].double(), expected, rtol=1e-5, atol=1e-4)
    assert left.grad is not None and right.grad is not None
    expected = q(out, "gradient", backward, 1) @ q(weight, "weight", e4m3, 0)
    torch.testing.assert_close(left.grad[:, 0].double(), expected, rtol=1e-5, atol=1e-4)
    expected = q(out, "gradient", backward, 0).T @ q(rows, "input", e4m3, 0)
    torch.testing.assert_close(right.grad.double(), expected, rtol=1e-5, atol=1e-4)
    assert not torch.allclose(actual[:, 0], rows @ weight.T, rtol=1e-4, atol=1e-4), "eight bits must make a difference"


def test_delayed_scales_come_from_the_largest_values_of_the_last_steps() -> None:
    from acc_megatron.mesh import cpu_backend

    cpu_backend.install()
    from acc_megatron.model.fp8.emulated_linear import Emulation, Operands

    operands = Operands(Emulation(DelayedScaling(), "hybrid", history_steps=2))
    for amax, largest in ((4.0, 4.0), (2.0, 4.0), (1.0, 2.0), (0.0, 1.0)):  # the last two steps count
        operands(torch.tensor([[amax, -amax / 2]]), "input", along=1)
        assert operands.seen[0] == amax
        operands.update_history(operands.seen)
        assert operands.scale[0] == 448 / largest and operands.scale[1] == 1.0
    operands.update_history(torch.zeros(3))
    assert operands.scale[0] == 448.0, "if the history contains only zeros, the scale does not change"
    recent = Operands(Emulation(DelayedScaling(), "hybrid", history_steps=2, amax_choice="most_recent"))
    for amax in (4.0, 2.0):
        recent.update_history(torch.full((3,), amax))
    assert recent.scale.tolist() == [224.0, 224.0, 57344 / 2]
    assert "transformer_engine" not in sys.modules
