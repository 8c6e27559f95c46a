"""Every layout of two and four processes equals one process, on packed uneven documents supervised at their end."""

from collections.abc import Callable
from pathlib import Path

import pytest
from layout_matrix import (
    PAIRS,
    SHARDED_PAIRS,
    SHARDED_SINGLES,
    SINGLES,
    Case,
    Result,
    loss_difference,
    norm_difference,
    one_process,
    run_cases,
)
from make_inputs import make_recipe

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recipe(tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module")
def references(recipe: Path) -> tuple[Result, Result]:
    return one_process(recipe)


@pytest.fixture(scope="module")
def reference(references: tuple[Result, Result]) -> Result:
    return references[0]


@pytest.fixture(scope="module")
def measured(recipe: Path, reference: Result) -> Callable[[list[Case]], dict[str, Result]]:
    """Runs a list of layouts once, whichever test asks first."""
    known: dict[int, dict[str, Result]] = {}

    def run(cases: list[Case]) -> dict[str, Result]:
        if id(cases) not in known:
            known[id(cases)] = run_cases(recipe, cases, reference)
        return known[id(cases)]

    return run


@pytest.mark.parametrize(
    "cases", [SINGLES, PAIRS], ids=["every single layout of 2", "every pair on 4, CP4, and TP2 CP2 EP4"]
)
def test_losses_and_gradients_of_every_layout_are_those_of_one_process(
    cases: list[Case], measured: Callable[[list[Case]], dict[str, Result]], reference: Result
) -> None:
    assert reference.losses[0] - reference.losses[-1] > 0.05, "weights must move, or scale errors stay unseen"
    results = measured(cases)
    wrong = {
        name: (loss_difference(result, reference), result.gradient_difference)
        for name, result in results.items()
        if loss_difference(result, reference) > 1e-5 or result.gradient_difference > 1e-5
    }
    assert not wrong, f"(loss difference, relative gradient difference): {wrong}"
    assert any(result.gradient_difference > 0 for result in results.values()), "gradients were compared"


def test_cp_does_not_change_the_maths(measured: Callable[[list[Case]], dict[str, Result]], reference: Result) -> None:
    for result in (measured(SINGLES)["CP2"], measured(PAIRS)["CP4"]):
        assert result.losses == pytest.approx(reference.losses, rel=1e-6)
        assert 0 < result.gradient_difference <= 1e-5


@pytest.mark.parametrize("cases", [SHARDED_SINGLES, SHARDED_PAIRS], ids=["on 2", "pairs on 4"])
def test_losses_and_gradient_norms_under_the_distributed_optimizer_are_those_of_one_process(
    cases: list[Case], recipe: Path, references: tuple[Result, Result]
) -> None:
    _, adamw = references
    assert adamw.losses[0] - adamw.losses[-1] > 0.05
    results = run_cases(recipe, cases, None)
    differences = {name: (loss_difference(r, adamw), norm_difference(r, adamw)) for name, r in results.items()}
    # torch's float32 norm of ten million entries is off by 3e-5 in one process and by 3e-6 in four parts; a wrong scale
    # would be 2 or 4
    wrong = {name: pair for name, pair in differences.items() if pair[0] > 1e-5 or pair[1] > 1e-4}
    assert not wrong, f"(loss difference, relative norm difference): {wrong}"


def test_gradients_of_one_process_are_those_of_transformers_in_float64(recipe: Path, reference: Result) -> None:
    import torch
    from transformers import Qwen3MoeForCausalLM

    from acc_megatron.config import load_config
    from acc_megatron.data.loader import EMPTY_ROW, Loader
    from acc_megatron.data_tools.dataset_folder import open_dataset
    from acc_megatron.layout import Layout

    config = load_config(recipe)
    data = open_dataset(Path(config.data.path))
    loader = Loader(data, config.data, config.model, Layout(1, 1, 1, 1, 1, 1), config.train.seed)
    model = Qwen3MoeForCausalLM.from_pretrained(recipe.parent / "hf", experts_implementation="eager").double()
    loss_sum, count = torch.zeros((), dtype=torch.float64), 0
    for number in loader.batch(0, config.train.global_batch_rows, config.train.epochs):
        for document in loader.rows[number] if number != EMPTY_ROW else ():
            ids, mask = (torch.from_numpy(array.astype("int64")) for array in data.document(document))
            log_probability = model(ids[None]).logits[0].log_softmax(-1)
            chosen = log_probability[:-1].gather(1, ids[1:, None])[:, 0]
            loss_sum = loss_sum - chosen[mask[1:] == 1].sum()
            count += int(mask[1:].sum())
    (loss_sum / count).backward()
    assert reference.losses[0] == pytest.approx(float(loss_sum) / count, abs=1e-5)
    exact = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    compared = 0
    for name, gradient in reference.gradients.items():
        if name in exact:  # transformers keeps a layer's experts in one tensor, held below
            largest = float(exact[name].abs().max())
            assert float((gradient - exact[name]).abs().max()) <= 1e-5 * largest, name
            compared += 1
    for layer in range(config.model.num_hidden_layers):
        at = f"model.layers.{layer}.mlp.experts."
        both = torch.stack(
            [
                torch.cat([reference.gradients[f"{at}{e}.{half}_proj.weight"] for half in ("gate", "up")])
                for e in range(config.model.num_experts)
            ]
        )
        largest = float(exact[f"{at}gate_up_proj"].abs().max())
        assert float((both - exact[f"{at}gate_up_proj"]).abs().max()) <= 1e-5 * largest, at
    assert compared >= 3 + 9 * config.model.num_hidden_layers - 1
