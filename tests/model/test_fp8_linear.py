"""FP8 emulated in the CPU spec: what is quantised, exactness across layouts where the recipe allows it, drift."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from layout_matrix import SGD, Case, Result, run_cases
from make_inputs import TINY_MODEL, make_recipe

FP8 = ("fp8_delayed", "fp8_current", "fp8_blockwise", "fp8_mxfp8")
# each matrix is cut by TP 2 at a multiple of 128, so that no block is cut
MODEL = TINY_MODEL | {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32}
MODEL |= {"moe_intermediate_size": 32, "tie_word_embeddings": True}
pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def two_steps(recipe: Path, case: Case, _: Result | None) -> Result:
    """Losses of two steps of SGD over float32: the second tells of the first's gradients. Named `precision/layout`."""
    from acc_megatron.distributed import process_groups  # isort: split
    from acc_megatron.config import load_config
    from acc_megatron.model import precision, transformer_config
    from acc_megatron.resume import restore
    from acc_megatron.step import train_step
    from acc_megatron.trainer import build_trainer

    name = case.name.split("/")[0]
    precision.PRECISIONS[name] = dataclasses.replace(precision.PRECISIONS[name], dtype="float32")
    transformer_config.DTYPES[name] = torch.float32
    config = load_config(recipe, [*SGD, f"train.precision={name}", *case.overrides])
    with process_groups(config.parallel, timeout_seconds=300) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        return Result(losses=[train_step(trainer)["loss"] for _ in range(2)])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("fp8"), **MODEL)


def test_layouts_agree_where_the_recipe_scales_nothing_across_a_cut(recipe: Path) -> None:
    one = run_cases(recipe, [Case(f"{name}/one", 1) for name in ("float32", *FP8)], None, two_steps)
    settings = {"TP2": ("parallel.tensor=2",), "EP2": ("parallel.expert=2",)}
    cases = [Case(f"{name}/{layout}", 2, more) for name in FP8 for layout, more in settings.items()]
    two = run_cases(recipe, cases, None, two_steps)
    for name in FP8:
        reference = one[f"{name}/one"]
        assert reference.losses != one["float32/one"].losses, f"{name}: eight bits must show"
        for layout in settings:
            result = two[f"{name}/{layout}"]
            forward, after = (abs(a - b) for a, b in zip(result.losses, reference.losses, strict=True))
            # a last bit turns a few roundings of the backward pass, each worth 1/16 of its value; and with current
            # scales a tensor's is another where the tensor is: half a weight, or the tokens of two rows
            assert forward <= (1e-3 if name == "fp8_current" else 1e-5), f"{name} {layout}: {forward}"
            assert after <= (1e-2 if name == "fp8_current" else 2e-3), f"{name} {layout}: {after}"


def test_the_drift_of_every_recipe_is_bounded(tmp_path: Path) -> None:
    from precision_drift import PRECISIONS, curves, drift, make_drift_recipe

    found = curves(make_drift_recipe(tmp_path, 8), 8)
    assert found["float32"][0] - found["float32"][-1] > 1.0
    for precision in PRECISIONS[1:]:
        assert found[precision] != found["float32"]
        mean, largest = drift(found[precision], found["float32"])
        assert mean < 0.01 and largest < 0.05, f"{precision}: {mean:.4f}, {largest:.4f}"


def test_every_product_of_a_layer_has_both_operands_quantised_along_what_it_sums_over() -> None:
    from acc_megatron import cpu_backend

    cpu_backend.install()
    from acc_megatron.model.fp8_linear import Emulation, Operands, product
    from acc_megatron.model.fp8_quantise import quantise

    generator = torch.Generator().manual_seed(0)
    x, weight, cotangent = (torch.randn(shape, generator=generator) for shape in ((40, 1, 96), (80, 96), (40, 1, 80)))
    for megatron, form in (("tensorwise", "hybrid"), ("blockwise", "e4m3"), ("mxfp8", "e4m3"), ("delayed", "hybrid")):
        e4m3, backward = torch.float8_e4m3fn, torch.float8_e5m2 if form == "hybrid" else torch.float8_e4m3fn
        scale = torch.tensor(1.0) if megatron == "delayed" else None

        def q(matrix: torch.Tensor, role: Any, dtype: torch.dtype, along: int) -> torch.Tensor:
            return quantise(matrix, role, dtype, megatron, along=along, scale=scale).double()  # noqa: B023

        rows, out = x[:, 0], cotangent[:, 0]
        left, right = x.clone().requires_grad_(), weight.clone().requires_grad_()
        operands = Operands(Emulation(megatron, form))
        actual = product(left, right, operands)
        actual.backward(cotangent)
        expected = q(rows, "input", e4m3, 1) @ q(weight, "weight", e4m3, 1).T
        torch.testing.assert_close(actual[:, 0].double(), expected, rtol=1e-5, atol=1e-4)
        assert left.grad is not None and right.grad is not None
        expected = q(out, "gradient", backward, 1) @ q(weight, "weight", e4m3, 0)
        torch.testing.assert_close(left.grad[:, 0].double(), expected, rtol=1e-5, atol=1e-4)
        expected = q(out, "gradient", backward, 0).T @ q(rows, "input", e4m3, 0)
        torch.testing.assert_close(right.grad.double(), expected, rtol=1e-5, atol=1e-4)
        assert not torch.allclose(actual[:, 0], rows @ weight.T, rtol=1e-4, atol=1e-4), "eight bits must show"


def test_delayed_scales_follow_the_history() -> None:
    from acc_megatron import cpu_backend

    cpu_backend.install()
    from acc_megatron.model.fp8_linear import Emulation, Operands

    operands = Operands(Emulation("delayed", "hybrid", history_steps=2))
    for amax, largest in ((4.0, 4.0), (2.0, 4.0), (1.0, 2.0), (0.0, 1.0)):  # the last two steps count
        operands(torch.tensor([[amax, -amax / 2]]), "input", along=1)
        assert operands.seen[0] == amax
        operands.move_on(operands.seen)
        assert operands.scale[0] == 448 / largest and operands.scale[1] == 1.0
    operands.move_on(torch.zeros(3))
    assert operands.scale[0] == 448.0, "nothing seen for the whole history: the scale stays"
    recent = Operands(Emulation("delayed", "hybrid", history_steps=2, amax_choice="most_recent"))
    for amax in (4.0, 2.0):
        recent.move_on(torch.full((3,), amax))
    assert recent.scale.tolist() == [224.0, 224.0, 57344 / 2]
    assert "transformer_engine" not in sys.modules
