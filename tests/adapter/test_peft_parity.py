"""Loss and gradients of an adapter equal those that peft computes on transformers in float64."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.adapter_matrix import ALL, DENSE_ALL, NORMS, make_adapter, one_process, settings
from support.make_inputs import make_recipe
from support.peft_folders import ATTENTION, MLP, with_peft
from support.transformers_gradients import float64_gradients

pytest.importorskip("peft")
EXPERTS, RANK = 4, 4


def experts_of_peft(exact: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The gradients of one layer's experts by expert, from peft's factors of transformers' fused matrices."""
    inner, outer = f"base_model.model.{prefix}.base_layer", f"base_model.model.{prefix}"
    found = {}
    for expert in range(EXPERTS):
        # A of gate and up: [experts x (gate, up) x rank, hidden]; B: [gate and up rows, (gate, up) x rank x experts]
        first = exact[f"{inner}.lora_A.default.weight"].view(EXPERTS, 2, RANK, -1)[expert]
        second = exact[f"{inner}.lora_B.default.weight"].view(-1, 2, RANK, EXPERTS)[..., expert]
        rows = len(second) // 2
        found[f"gate_proj.lora_A {expert}"], found[f"up_proj.lora_A {expert}"] = first
        found[f"gate_proj.lora_B {expert}"], found[f"up_proj.lora_B {expert}"] = second[:rows, 0], second[rows:, 1]
        found[f"down_proj.lora_A {expert}"] = exact[f"{outer}.lora_A.default.weight"].view(EXPERTS, RANK, -1)[expert]
        found[f"down_proj.lora_B {expert}"] = exact[f"{outer}.lora_B.default.weight"].view(-1, RANK, EXPERTS)[
            ..., expert
        ]
    return found


def expected_gradient(name: str, exact: dict[str, torch.Tensor]) -> torch.Tensor:
    """The gradient that peft computes for a key of our checkpoint; of experts stacked."""
    name = name.removeprefix("adapter.")
    if ".experts." in name:
        prefix, _, factor = name.rpartition(".experts.")
        of_layer = experts_of_peft(exact, f"{prefix}.experts")
        return torch.stack([of_layer[f"{factor} {expert}"] for expert in range(EXPERTS)])
    module, _, kind = name.rpartition(".")
    if kind == "weight":
        return exact[f"base_model.model.{module}.modules_to_save.default.weight"]
    for candidate in (
        f"{module}.{kind}.default.weight",
        f"{module}.{kind.replace('lora_', 'lora_embedding_')}.default",
    ):
        if (found := exact.get(f"base_model.model.{candidate}")) is not None:
            return found
    raise AssertionError(f"peft has no {name}: {sorted(exact)[:20]}")


def check(folder: Path, family: str, targets: tuple[str, ...], trained: tuple[str, ...], *names: str) -> None:
    recipe = make_recipe(folder, family=family)
    adapter = make_adapter(folder / "adapter", recipe, targets=targets, trained=trained)
    ours, _ = one_process(recipe, settings(adapter, *names))

    def wrap(model: Any) -> Any:
        return with_peft(model, folder / "adapter" / "peft").double()

    loss, exact = float64_gradients(recipe, wrap)
    assert ours.losses[0] == pytest.approx(loss, abs=1e-5)
    assert len(ours.gradients) >= 2 * len(targets)
    for name, gradient in ours.gradients.items():
        expected = expected_gradient(name, exact)
        largest = float(expected.abs().max())
        assert largest > 0 and float((gradient - expected).abs().max()) <= 1e-5 * largest, name


def test_factors_of_every_matrix_have_the_loss_and_gradients_of_peft(tmp_path: Path) -> None:
    targets = (*ATTENTION, *MLP, "gate", "embed_tokens", "lm_head")
    check(tmp_path, "qwen3_moe", targets, NORMS, ALL, "['norms']")


@pytest.mark.slow
def test_trained_routers_and_embeddings_have_the_gradients_of_peft(tmp_path: Path) -> None:
    check(
        tmp_path, "qwen3_moe", ATTENTION, ("gate", "embed_tokens", "lm_head"), "['attention']",
        "['router', 'embeddings', 'head']",
    )  # fmt: skip


@pytest.mark.slow
def test_factors_of_a_dense_model_have_the_loss_and_gradients_of_peft(tmp_path: Path) -> None:
    check(tmp_path, "qwen3", (*ATTENTION, *MLP, "embed_tokens", "lm_head"), NORMS, DENSE_ALL, "['norms']")
