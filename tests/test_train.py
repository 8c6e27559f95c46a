"""The loop through real processes: layouts equal one process, a restart changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import acc, good

from acc_megatron.observe.metrics import read_steps

NUM_STEPS = 5
pytestmark = pytest.mark.distributed


def run(recipe: Path, run_dir: Path, *overrides: str, processes: int = 1) -> list[dict[str, Any]]:
    """Train and return the logged steps."""
    good(acc("train", recipe, "--json", f"train.run_dir={run_dir}", *overrides, processes=processes))
    return read_steps(run_dir)


@pytest.fixture(scope="module")
def one_process(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run(recipe, tmp_path_factory.mktemp("one") / "run")


def test_the_batches_have_unequal_masks_and_one_rank_without_a_supervised_token(recipe: Path, dataset: Path) -> None:
    from acc_megatron.config import load_config
    from acc_megatron.data.loader import EMPTY_ROW, Loader
    from acc_megatron.data_tools.dataset_folder import open_dataset
    from acc_megatron.layout import Layout

    config = load_config(recipe)
    loaders = {
        context: Loader(open_dataset(dataset), config.data, config.model, Layout(2, 1, context, 1, 1, 1), 0)
        for context in (1, 2)
    }
    batches = [loaders[1].batch(step, 2, 3) for step in range(NUM_STEPS)]
    assert any(EMPTY_ROW in batch for batch in batches), "under DP2 one rank then has no supervised token"
    counts = [
        [sum(int(row.loss_mask.sum()) for row in loaders[2].rank_rows(batch, 0, rank)) for rank in (0, 1)]
        for batch in batches
    ]
    assert any(0 in pair for pair in counts), f"under CP2 supervised tokens by rank are {counts}"
    assert len({sum(pair) for pair in counts}) > 1


def test_two_ranks_under_torchrun_give_the_losses_and_gradient_norms_of_one_process(
    recipe: Path, one_process: list[dict[str, Any]], tmp_path: Path
) -> None:
    steps = run(recipe, tmp_path / "run", "parallel.context=2", "parallel.expert=2", processes=2)
    assert len(one_process) == len(steps) == NUM_STEPS
    assert one_process[0]["loss"] - one_process[-1]["loss"] > 0.05, "weights must move, or scale errors stay unseen"
    for expected, actual in zip(one_process, steps, strict=True):
        assert actual["supervised_tokens"] == expected["supervised_tokens"]
        assert actual["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert actual["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)


def test_a_restart_changes_nothing_to_the_last_bit(recipe: Path, tmp_path: Path) -> None:
    adam = ["optimizer.kind=adamw", "optimizer.learning_rate=3e-3", "optimizer.clip_grad_norm=1.0"]
    layout = [*adam, "parallel.context=2", "parallel.expert=2"]
    whole = run(recipe, tmp_path / "whole", *layout, processes=2)
    run(recipe, tmp_path / "parts", *layout, "train.max_steps=2", processes=2)
    parts = run(recipe, tmp_path / "parts", *layout, processes=2)
    assert [step["loss"].hex() for step in parts] == [step["loss"].hex() for step in whole]
    assert [step["grad_norm"].hex() for step in parts] == [step["grad_norm"].hex() for step in whole]


def test_the_first_loss_is_that_of_transformers_over_the_supervised_tokens(
    recipe: Path, dataset: Path, imported: Path, one_process: list[dict[str, Any]]
) -> None:
    import torch
    from transformers import Qwen3MoeForCausalLM

    from acc_megatron.config import load_config
    from acc_megatron.data.loader import EMPTY_ROW, Loader
    from acc_megatron.data_tools.dataset_folder import open_dataset
    from acc_megatron.layout import Layout

    config = load_config(recipe)
    data = open_dataset(dataset)
    loader = Loader(data, config.data, config.model, Layout(1, 1, 1, 1, 1, 1), config.train.seed)
    model = Qwen3MoeForCausalLM.from_pretrained(imported.parent / "hf")
    loss_sum, count = 0.0, 0
    for number in loader.batch(0, config.train.global_batch_rows, config.train.epochs):
        for document in loader.rows[number] if number != EMPTY_ROW else ():
            ids, mask = (torch.from_numpy(array.copy()) for array in data.document(document))
            with torch.no_grad():
                log_probability = model(ids[None].long()).logits[0].double().log_softmax(-1)
            chosen = log_probability[:-1].gather(1, ids[1:, None].long())[:, 0]
            loss_sum -= float(chosen[mask[1:] == 1].sum())
            count += int(mask[1:].sum())
    assert one_process[0]["supervised_tokens"] == count
    assert one_process[0]["loss"] == pytest.approx(loss_sum / count, abs=1e-5)


def test_a_run_refuses_to_go_on_over_other_data(recipe: Path, tmp_path: Path) -> None:
    run(recipe, tmp_path / "run", "train.max_steps=1")
    done = acc("train", recipe, f"train.run_dir={tmp_path / 'run'}", "train.seed=5")
    assert done.returncode == 2
    assert "was trained with seed = 0, this run has 5" in done.stderr


def test_a_damaged_checkpoint_is_refused_by_the_name_of_its_file(recipe: Path, tmp_path: Path) -> None:
    run(recipe, tmp_path / "run", "train.max_steps=1")
    folder = tmp_path / "run" / "checkpoints" / "step_00000001"
    victim = max(folder.glob("*.distcp"), key=lambda file: file.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    done = acc("train", recipe, f"train.run_dir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert f"{victim} is damaged" in done.stderr
    expected = json.loads((folder / "manifest.json").read_bytes())["files"][victim.name]["sha256"]
    assert expected in done.stderr
