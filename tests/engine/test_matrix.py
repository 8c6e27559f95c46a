"""Transformer Engine's spec in every layout and setting against the CPU spec on one process: losses and gradients."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.engine.cases import SAVED_STEP, Case, Outcome, run_cases, scaled_down

OVERLAPPED = tuple(
    f"parallel.{key}=true" for key in ("distributed_optimizer", "overlap_grad_reduce", "overlap_param_gather")
)
REDUCTIONS_ONLY = ("parallel.overlap_param_gather=false",)
CALLED = (
    "fused_attn_bwd",
    "fused_rope_backward",
    "te_general_grouped_gemm",
    "fused_topk_with_score_function_bwd",
    "fused_score_for_moe_aux_loss_bwd",
    "multi_tensor_adam",
)
MODULES_PER_LAYER = 12  # of Transformer Engine's classes, parts of its core attention included


def layout(name: str, world: int, *settings: str, saves: bool = False, **sizes: int) -> Case:
    """A layout without the distributed optimizer, so that whole gradients can be compared."""
    return Case(name, world, (*(f"parallel.{axis}={size}" for axis, size in sizes.items()), *settings), saves=saves)


def sharded(name: str, world: int, *settings: str, saves: bool = False, **sizes: int) -> Case:
    """The distributed optimizer with every overlap: a rank keeps a part of the gradients, so norms are compared."""
    named = tuple(f"parallel.{axis}={size}" for axis, size in sizes.items())
    return Case(name, world, (*OVERLAPPED, *named, *settings), saves=saves, compares_gradients=False)


def recomputing(module: str) -> Case:
    return Case(f"recompute {module}", 1, ("memory.recompute=selective", f"memory.recompute_modules=['{module}']"))


CASES = [
    Case("one process, full recompute", saves=True),
    Case("no recompute", 1, ("memory.recompute=none",)),
    *(recomputing(module) for module in ("core_attn", "layernorm", "moe", "moe_act")),
    Case("dispatcher allgather", 1, ("moe.dispatcher=allgather",)),
    Case("bfloat16", 1, ("train.precision=bfloat16",), compares_gradients=False),
    Case("from the CPU spec to one process", resumes="cpu/one process"),
    layout("TP2 (SP)", 2, tensor=2, saves=True),
    layout("EP2", 2, expert=2),
    layout("CP2 p2p", 2, context=2),
    layout("CP2 all_gather", 2, "parallel.context_communication=all_gather", context=2),
    layout("CP2 a2a", 2, "parallel.context_communication=a2a", context=2),
    layout("PP2", 2, pipeline=2),
    layout("PP2 VPP2", 2, pipeline=2, virtual_pipeline=2),
    Case("CP2 bfloat16", 2, ("parallel.context=2", "train.precision=bfloat16"), compares_gradients=False),
    sharded("DP2, distributed optimizer, all overlaps", 2),
    sharded("EP2, distributed optimizer, all overlaps", 2, expert=2),
    sharded("EP2, distributed optimizer, reductions overlapped", 2, *REDUCTIONS_ONLY, expert=2, saves=True),
    sharded("PP2 VPP2, distributed optimizer, saved", 2, *REDUCTIONS_ONLY, pipeline=2, virtual_pipeline=2, saves=True),
    Case("from the CPU spec to TP2", 2, ("parallel.tensor=2",), resumes="cpu/one process"),
    Case("from the CPU spec to DP2, distributed optimizer", 2, OVERLAPPED, resumes="cpu/one process"),
    layout("TP2 CP2", 4, tensor=2, context=2),
    layout("TP2 EP2", 4, tensor=2, expert=2),
    layout("TP2 PP2", 4, tensor=2, pipeline=2),
    layout("CP2 EP2", 4, context=2, expert=2),
    layout("CP2 PP2 VPP2", 4, context=2, pipeline=2, virtual_pipeline=2),
    layout("EP2 PP2", 4, expert=2, pipeline=2),
    sharded("CP2 EP2, distributed optimizer, all overlaps", 4, context=2, expert=2),
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scaled_down(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def reference(recipe: Path) -> Outcome:
    """The CPU spec on one process, in float32; saved after SAVED_STEP."""
    outcome = run_cases(recipe, "cpu", [Case("one process", saves=True)])["one process"]
    assert outcome.error is None, outcome.error
    assert outcome.engine_modules == 0 and outcome.losses[0] - outcome.losses[-1] > 0.05, "weights must move"
    return outcome


@pytest.fixture(scope="module")
def selected(request: pytest.FixtureRequest) -> list[Case]:
    """The cases that the selected tests need."""
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    names = {values["case"].name for values in parameters if isinstance(values.get("case"), Case)}
    names |= {values["source"] for values in parameters if "source" in values}
    return [case for case in CASES if case.name in names]


@pytest.fixture(scope="module")
def outcome_of(recipe: Path, reference: Outcome, selected: list[Case]) -> Callable[[Case], Outcome]:
    """Runs all selected cases of a world size when the first of them is asked for."""
    found: dict[str, Outcome] = {}

    def outcome(case: Case) -> Outcome:
        if case.name not in found:
            same_world = [each for each in selected if each.world == case.world]
            found.update(run_cases(recipe, "engine", same_world, reference))
        return found[case.name]

    return outcome


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=pytest.mark.long if case.world == 4 else ()) for case in CASES]
)
def test_the_engine_spec_gives_the_losses_and_gradients_of_the_cpu_spec(
    case: Case,
    outcome_of: Callable[[Case], Outcome],
    reference: Outcome,
    add_row: Callable[..., None],
) -> None:
    outcome = outcome_of(case)
    if outcome.error is not None:
        add_row(case, None, None)
        pytest.fail(outcome.error)
    first = SAVED_STEP if case.resumes else 0
    loss = max(abs(a - b) for a, b in zip(outcome.losses, reference.losses[first:], strict=True))
    norm = max(abs(a / b - 1) for a, b in zip(outcome.norms, reference.norms[first:], strict=True))
    compares = case.compares_gradients and not case.resumes
    add_row(case, loss, outcome.gradient_difference if compares else norm, is_norm=not compares)
    is_bfloat16 = "bfloat16" in case.name
    assert loss <= (2e-3 if is_bfloat16 else 1e-5)
    assert norm <= (1e-2 if is_bfloat16 else 1e-4)
    if compares:
        assert 0 < outcome.gradient_difference <= 1e-5
    # rank 0 has the final norm only if there is one stage
    assert outcome.engine_modules == (2 * MODULES_PER_LAYER if "PP2" in case.name else 4 * MODULES_PER_LAYER + 1)
    for name in CALLED:
        assert outcome.calls[name] > 0, f"{name} was never called"


@pytest.fixture(scope="module")
def resumed(recipe: Path, selected: list[Case], outcome_of: Callable[[Case], Outcome]) -> dict[str, Outcome]:
    """The CPU spec on one process, resumed from every checkpoint that the engine's spec saved."""
    saved = [case for case in selected if case.saves and outcome_of(case).error is None]
    return run_cases(recipe, "cpu", [Case(case.name, resumes=f"engine/{case.name}") for case in saved])


@pytest.mark.parametrize("source", [case.name for case in CASES if case.saves])
def test_the_cpu_spec_resumes_what_the_engine_spec_saved(
    source: str,
    resumed: dict[str, Outcome],
    reference: Outcome,
    add_row: Callable[..., None],
) -> None:
    assert source in resumed, "the run did not save a checkpoint"
    outcome = resumed[source]
    assert outcome.error is None, outcome.error
    loss = max(abs(a - b) for a, b in zip(outcome.losses, reference.losses[SAVED_STEP:], strict=True))
    add_row(Case(f"from {source} to the CPU spec on one process"), loss, None)
    assert loss <= 1e-5
