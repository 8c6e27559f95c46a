"""The training loop in real processes: layouts give the results of one process, and a restart changes nothing."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.commands import acc, good
from support.run_processes import start

from acc_megatron.observe.metrics import read_steps

NUM_STEPS = 5
pytestmark = pytest.mark.distributed


def run(recipe: Path, run_dir: Path, *overrides: str, processes: int = 1) -> list[dict[str, Any]]:
    """Train and return the logged steps."""
    arguments = ["train", str(recipe), "--json", f"train.run_dir={run_dir}", *overrides]
    training = start(run_dir.with_name(f"{run_dir.name}_output"), arguments, world=processes)
    assert training.wait() == [0] * processes, training.error_output()[-3000:]
    return read_steps(run_dir)


def refused(recipe: Path, run_dir: Path, *overrides: str) -> str:
    """Train where it must be refused as the user's mistake; returns the error output."""
    arguments = ["train", str(recipe), f"train.run_dir={run_dir}", *overrides]
    training = start(run_dir.with_name(f"{run_dir.name}_refused"), arguments)
    assert training.wait() == [2]
    return training.error_output()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("one") / "run"


@pytest.fixture(scope="module")
def one_process(recipe: Path, run_dir: Path) -> list[dict[str, Any]]:
    """The steps of a run in one process, whose third step is profiled."""
    return run(recipe, run_dir, "profile.steps=[3]")


def test_batches_have_different_masks_and_one_rank_without_a_supervised_token(recipe: Path, dataset: Path) -> None:
    from acc_megatron.config import load_config
    from acc_megatron.data.loader import EMPTY_ROW, Loader
    from acc_megatron.data_tools.convert.dataset_folder import open_dataset
    from acc_megatron.mesh.layout import Layout

    config = load_config(recipe)
    loaders = {
        context: Loader(open_dataset(dataset), config.data, config.model, Layout(world=2, context=context), 0)
        for context in (1, 2)
    }
    batches = [loaders[1].batch(step, 2, 3) for step in range(NUM_STEPS)]
    assert any(EMPTY_ROW in batch for batch in batches), "with DP2 one rank then has no supervised token"
    counts = [
        [sum(int(row.loss_mask.sum()) for row in loaders[2].rank_rows(batch, 0, rank)) for rank in (0, 1)]
        for batch in batches
    ]
    assert any(0 in pair for pair in counts), f"with CP2 supervised tokens by rank are {counts}"
    assert len({sum(pair) for pair in counts}) > 1


def test_two_ranks_give_the_losses_and_gradient_norms_of_one_process(
    recipe: Path, one_process: list[dict[str, Any]], tmp_path: Path
) -> None:
    steps = run(recipe, tmp_path / "run", "parallel.context=2", "parallel.expert=2", processes=2)
    assert len(one_process) == len(steps) == NUM_STEPS
    assert one_process[0]["loss"] - one_process[-1]["loss"] > 0.05, "the weights must change"
    for expected, actual in zip(one_process, steps, strict=True):
        assert actual["supervised_tokens"] == expected["supervised_tokens"]
        assert actual["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert actual["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)


@pytest.mark.slow
def test_two_ranks_under_torchrun_give_the_losses_of_one_process(
    recipe: Path, one_process: list[dict[str, Any]], tmp_path: Path
) -> None:
    good(acc("train", recipe, "--json", f"train.run_dir={tmp_path / 'run'}", "parallel.expert=2", processes=2))
    losses = [step["loss"] for step in read_steps(tmp_path / "run")]
    assert losses == pytest.approx([step["loss"] for step in one_process], abs=1e-5)


def test_every_step_logs_all_values(one_process: list[dict[str, Any]]) -> None:
    assert set(one_process[0]) == {
        "step", "restarts", "loss", "supervised_tokens", "tokens", "documents", "learning_rate", "grad_norm",
        "updated", "skipped", "skipped_steps", "seconds", "layout", "tokens_per_second", "data_wait_seconds",
        "model_flops_per_second", "peak_share", "memory_bytes", "memory_peak_bytes", "expert_load_max_over_mean",
        "dead_experts", "data_seconds", "forward_seconds", "backward_seconds", "reduction_seconds",
        "optimizer_seconds", "save_seconds", "validation_loss", "validation_loss_by_agent",
        "validation_best_step",
    }  # fmt: skip
    for step in one_process:
        sections = ("data", "forward", "backward", "reduction", "optimizer")
        assert all(step[f"{name}_seconds"] > 0 for name in ("data", "forward", "backward", "optimizer"))
        assert sum(step[f"{name}_seconds"] for name in sections) <= step["seconds"]
        assert step["tokens_per_second"] == pytest.approx(step["tokens"] / step["seconds"])
        assert 0 < step["data_wait_seconds"] < step["seconds"]
        assert 0 < step["memory_bytes"] <= step["memory_peak_bytes"]
        assert len(step["expert_load_max_over_mean"]) == len(step["dead_experts"]) == 2


def test_a_profile_contains_the_sections_and_operations_of_the_chosen_step_only(
    one_process: list[dict[str, Any]], run_dir: Path
) -> None:
    (file,) = (run_dir / "profile").iterdir()
    assert file.name == "step_00000003_rank_00000.json.gz" and len(one_process) == NUM_STEPS
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    names = Counter(event["name"] for event in events if event.get("cat") in ("user_annotation", "cpu_op"))
    sections = ("data", "forward", "backward", "optimizer")
    # one step of two microbatches
    assert [names[section] for section in sections] == [1, 2, 2, 1]
    assert names["aten::mm"] > 10
    longest = max(event["dur"] for event in events if event.get("name") in sections) / 1e6
    assert longest <= one_process[2]["seconds"]


def test_a_restart_changes_nothing_to_the_last_bit(recipe: Path, tmp_path: Path) -> None:
    adam = ["optimizer.kind=adamw", "optimizer.learning_rate=3e-3", "optimizer.clip_grad_norm=1.0"]
    layout = [*adam, "parallel.context=2", "parallel.expert=2"]
    complete = run(recipe, tmp_path / "complete", *layout, "train.max_steps=3", processes=2)
    screen = (tmp_path / "complete_output" / "stderr_0").read_text().splitlines()
    first = next(number for number, line in enumerate(screen) if line.startswith("model      "))
    assert screen[first].endswith(" parameters")
    assert screen[first + 2] == "layout     TP1 CP2 PP1 EP2 DP1 on 2 processes"
    assert [line.split("  loss")[0] for line in screen if line.startswith("step ")] == [
        "step     1 of 3", "step     3 of 3"
    ]  # fmt: skip
    assert "Warning" not in "".join(screen)
    assert screen[-1] == "stopped at train.max_steps; the same command with a larger one resumes at step 4 of 5"
    assert not (tmp_path / "complete_output" / "stderr_1").read_text()
    run(recipe, tmp_path / "parts", *layout, "train.max_steps=2", processes=2)
    parts = run(recipe, tmp_path / "parts", *layout, "train.max_steps=3", processes=2)
    assert [step["loss"].hex() for step in parts] == [step["loss"].hex() for step in complete]
    assert [step["grad_norm"].hex() for step in parts] == [step["grad_norm"].hex() for step in complete]


def test_the_first_loss_is_that_of_transformers_over_the_supervised_tokens(
    recipe: Path, dataset: Path, imported: Path, one_process: list[dict[str, Any]]
) -> None:
    import torch
    from transformers import Qwen3MoeForCausalLM

    from acc_megatron.config import load_config
    from acc_megatron.data.loader import EMPTY_ROW, Loader
    from acc_megatron.data_tools.convert.dataset_folder import open_dataset
    from acc_megatron.mesh.layout import Layout

    config = load_config(recipe)
    data = open_dataset(dataset)
    loader = Loader(data, config.data, config.model, Layout(), config.train.seed)
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


def test_resuming_on_different_data_or_from_a_damaged_checkpoint_is_refused(recipe: Path, tmp_path: Path) -> None:
    run(recipe, tmp_path / "run", "train.max_steps=1")
    assert "was trained with seed = 0, this run has 5" in refused(recipe, tmp_path / "run", "train.seed=5")
    folder = tmp_path / "run" / "checkpoints" / "step_00000001"
    damaged = max(folder.glob("*.distcp"), key=lambda file: file.stat().st_size)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    error = refused(recipe, tmp_path / "run")
    assert f"{damaged} is damaged" in error
    assert json.loads((folder / "manifest.json").read_bytes())["files"][damaged.name]["sha256"] in error
