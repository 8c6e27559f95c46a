"""A last layer of supervised rows on Transformer Engine's spec, against the CPU spec on one process."""

from pathlib import Path

import pytest
from support.engine.cases import Case, Outcome, assert_equal_to, run_cases, scaled_down
from support.layout_cases import SUPERVISED


def case(name: str, world: int, *settings: str) -> Case:
    return Case(name, world, (*SUPERVISED, *settings))


CASES = {
    "one process": [
        case("full recompute", 1),
        case("no recompute", 1, "memory.recompute=none"),
        case("core_attn, layernorm", 1,
             "memory.recompute=selective", "memory.recompute_modules=['core_attn', 'layernorm']"),
    ],
    "two processes": [
        case("TP2 (SP)", 2, "parallel.tensor=2"),
        case("CP2 p2p", 2, "parallel.context=2"),
        case("CP2 a2a", 2, "parallel.context=2", "parallel.context_communication=a2a"),
        case("EP2", 2, "parallel.expert=2"),
        case("PP2 VPP2", 2, "parallel.pipeline=2", "parallel.virtual_pipeline=2"),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scaled_down(tmp_path_factory.mktemp("last_layer"))


@pytest.fixture(scope="module")
def reference(recipe: Path) -> Outcome:
    outcome = run_cases(recipe, "cpu", [case("one process", 1)])["one process"]
    assert outcome.error is None, outcome.error
    return outcome


@pytest.mark.parametrize("name", CASES)
def test_the_engine_spec_gives_the_losses_and_gradients_of_the_cpu_spec(
    name: str, recipe: Path, reference: Outcome
) -> None:
    assert_equal_to(reference, recipe, CASES[name], called="fused_attn_bwd")
