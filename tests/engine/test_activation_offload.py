"""Megatron's offloading of activations by module: losses and gradients do not change, and bytes reach the host."""

from pathlib import Path

import pytest
from support.engine.cases import MODEL, Case, Outcome, run_cases, scaled_down

from acc_megatron.compatibility.memory import OFFLOAD_MODULES

ALL = ",".join(OFFLOAD_MODULES)
SETS = [*(name for name in OFFLOAD_MODULES if name != "attn_proj"), "core_attn,attn_proj", ALL]
LAYOUTS = {
    "TP2": ("parallel.tensor=2",),
    "EP2": ("parallel.expert=2",),
    "CP2": ("parallel.context=2",),
    "PP2": ("parallel.pipeline=2",),
}
NOTHING = "nothing offloaded"
# float32 numbers of a layer, by tokens of a row, hidden size, width of queries and keys, choices of a token and width
# of an expert; statistics of norms and probabilities come on top
TOKENS, HIDDEN, QUERIES, KEYS, HEADS, CHOICES, WIDTH = 512, 32, 32, 16, 4, 2, 32
NUMBERS = {
    "qkv_linear": TOKENS * (2 * HIDDEN + QUERIES + KEYS),  # of the norm input and output, and inputs of the head norms
    "core_attn": TOKENS * (QUERIES + 2 * KEYS + QUERIES + HEADS),  # queries, keys, values, output, log-sum-exp
    "attn_proj": TOKENS * QUERIES,
    "mlp_norm": TOKENS * HIDDEN,
    "expert_fc1": TOKENS * CHOICES * HIDDEN,
    "moe_act": TOKENS * CHOICES * 2 * WIDTH,  # gate and up; the product after it runs outside
}
LAYERS = 3  # of four: what the backward pass needs first stays


def offloading(modules: str, name: str = "", world: int = 1, *settings: str) -> Case:
    return Case(
        name or modules, world, ("memory.recompute=none", f"memory.offload_modules={modules.split(',')}", *settings)
    )


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scaled_down(tmp_path_factory.mktemp("offload"))


@pytest.fixture(scope="module")
def reference(recipe: Path) -> Outcome:
    """One process on Transformer Engine's spec, without offloading."""
    return without_offloading(recipe)


def without_offloading(recipe: Path) -> Outcome:
    for outcome in run_cases(recipe, "cpu", [Case("one process")]).values():
        assert outcome.error is None, outcome.error
    outcome = run_cases(recipe, "engine", [Case(NOTHING, 1, ("memory.recompute=none",))])[NOTHING]
    assert outcome.error is None, outcome.error
    assert not outcome.offloaded
    return outcome


def test_losses_and_gradients_do_not_change_by_a_bit(recipe: Path, reference: Outcome) -> None:
    recomputing = ("memory.recompute=selective", "memory.recompute_modules=['layernorm','moe_act']")
    cases = [
        *(offloading(modules) for modules in SETS),
        offloading("core_attn,expert_fc1", "recompute", 1, *recomputing),
    ]
    for name, outcome in run_cases(recipe, "engine", cases, reference).items():
        assert outcome.error is None, f"{name}: {outcome.error}"
        # the first step finds out which tensors there are, the later ones offload them ahead
        assert [loss.hex() for loss in outcome.losses] == [loss.hex() for loss in reference.losses], name
        assert outcome.gradient_difference == 0, name
        assert set(outcome.offloaded) <= set(NUMBERS) and outcome.offloaded, name
        for module, num_bytes in outcome.offloaded.items():
            assert 1 <= num_bytes / (4 * LAYERS * NUMBERS[module]) < 1.08, (name, module)


def test_every_layout_offloads_and_has_the_losses_and_gradients_of_one_process(
    recipe: Path, reference: Outcome
) -> None:
    compare([offloading(ALL, name, 2, *settings) for name, settings in LAYOUTS.items()], recipe, reference)


def test_a_virtual_pipeline_with_two_layers_a_chunk_offloads_too(tmp_path: Path) -> None:
    recipe = scaled_down(tmp_path, **(MODEL | {"num_hidden_layers": 8}))
    reference = without_offloading(recipe)
    virtual = offloading(ALL, "VPP2", 2, "parallel.pipeline=2", "parallel.virtual_pipeline=2")
    compare([virtual], recipe, reference)


def compare(cases: list[Case], recipe: Path, reference: Outcome) -> None:
    """Compare cases of one world size with one process."""
    for name, outcome in run_cases(recipe, "engine", cases, reference).items():
        assert outcome.error is None, f"{name}: {outcome.error}"
        assert outcome.losses == pytest.approx(reference.losses, abs=1e-5), name
        assert outcome.gradient_difference <= 1e-5, name
        assert outcome.offloaded and all(outcome.offloaded.values()), name
