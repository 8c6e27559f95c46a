"""Transformer Engine's spec of a dense model with tied embeddings and YaRN, against the CPU spec on one process."""

from pathlib import Path

import pytest
from support.engine.cases import SAVED_STEP, Case, Outcome, assert_equal_to, run_cases, scaled_down

MODEL = {"family": "qwen3", "hidden_size": 32, "intermediate_size": 64, "tie_word_embeddings": True}
# the longest document has more than 340 tokens, nearly three times the original window
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 128}
CASES = {
    "one process": [
        Case("one process, full recompute"),
        Case("recompute mlp", 1, ("memory.recompute=selective", "memory.recompute_modules=['mlp']")),
    ],
    "two processes": [
        Case("TP2 (SP)", 2, ("parallel.tensor=2",)),
        Case("CP2 p2p", 2, ("parallel.context=2",)),
        Case("CP2 a2a", 2, ("parallel.context=2", "parallel.context_communication=a2a")),
        Case("PP2", 2, ("parallel.pipeline=2",)),
    ],
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scaled_down(tmp_path_factory.mktemp("dense"), **MODEL, rope_scaling=YARN)


@pytest.fixture(scope="module")
def reference(recipe: Path) -> Outcome:
    outcome = run_cases(recipe, "cpu", [Case("one process")])["one process"]
    assert outcome.error is None, outcome.error
    assert outcome.losses[0] - outcome.losses[-1] > 0.05, "weights must move"
    return outcome


@pytest.mark.parametrize("name", CASES)
def test_the_engine_spec_gives_the_losses_and_gradients_of_the_cpu_spec(
    name: str, recipe: Path, reference: Outcome
) -> None:
    assert_equal_to(reference, recipe, CASES[name], called="fused_rope_backward")


def test_the_cpu_spec_resumes_what_the_engine_spec_saved(recipe: Path, reference: Outcome) -> None:
    saved = Case("full recompute, to be resumed", saves=True)  # its own name, because each case has its own folder
    assert run_cases(recipe, "engine", [saved])[saved.name].error is None
    outcome = run_cases(recipe, "cpu", [Case("resumed", resumes=f"engine/{saved.name}")])["resumed"]
    assert outcome.error is None, outcome.error
    assert outcome.losses == pytest.approx(reference.losses[SAVED_STEP:], abs=1e-5)
