"""A run's own checkpoints: resuming with any optimizer, saving in the background, and falling back."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ADAMW = ["optimizer.kind=adamw", "optimizer.learning_rate=3e-3", "optimizer.clip_grad_norm=1.0"]


@pytest.fixture
def go(recipe: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Train a run in this process up to a step; returns the logged losses as hexadecimal floats."""

    def run(name: str, max_steps: int, *overrides: str) -> list[str]:
        from acc_megatron.config import load_config
        from acc_megatron.observe.metrics import read_steps
        from acc_megatron.training.train import train

        settings = [f"train.run_dir={tmp_path / name}", f"train.max_steps={max_steps}", *overrides]
        train(load_config(recipe, settings))
        return [step["loss"].hex() for step in read_steps(tmp_path / name)]

    return run


def entry(run_dir: Path, step: int, file: str = "__0_0.distcp") -> dict[str, Any]:
    from acc_megatron.checkpoint.locate import read_json

    return read_json(run_dir / "checkpoints" / f"step_{step:08d}" / "manifest.json")["files"][file]


def test_a_resumed_run_with_sgd_has_the_losses_of_an_uninterrupted_one(go: Callable[..., list[str]]) -> None:
    complete = go("complete", 3)
    go("parts", 1)
    assert go("parts", 3) == complete
    assert len(set(complete)) == 3


def test_saving_in_the_background_writes_the_same_checkpoints_and_they_can_be_resumed_from(
    go: Callable[..., list[str]], tmp_path: Path
) -> None:
    both = [*ADAMW, "parallel.distributed_optimizer=true", "train.save_every_steps=1", "train.keep_checkpoints=9"]
    waited = go("waited", 2, *both)
    background = go("background", 2, *both, "train.async_save=true")
    assert background == waited
    for step in (1, 2):
        assert entry(tmp_path / "background", step) == entry(tmp_path / "waited", step), step
    shutil.rmtree(tmp_path / "background" / "checkpoints" / "step_00000002")
    (tmp_path / "background" / "checkpoints" / "latest").write_text("step_00000001\n")
    assert go("background", 2, *both, "train.async_save=true")[-1] == waited[-1]
    assert entry(tmp_path / "background", 2) == entry(tmp_path / "waited", 2)


def test_a_failed_save_in_the_background_ends_the_run_and_the_previous_checkpoint_stays_intact(
    go: Callable[..., list[str]], tmp_path: Path
) -> None:
    from acc_megatron.errors import CheckpointError

    go("first", 1)
    checkpoint = tmp_path / "first" / "checkpoints" / "step_00000001"
    size = sum(file.stat().st_size for file in checkpoint.rglob("*"))
    disk = tmp_path / "run"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size * 7 // 4}", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with pytest.raises(CheckpointError, match=r"rank 0: OSError: .Errno 28. No space left on device"):
            go("run", 4, "train.async_save=true", "train.save_every_steps=1")
        assert (disk / "checkpoints" / "latest").read_text() == "step_00000001\n"
        assert go("run", 1, "train.save_every_steps=9")  # loads the checkpoint; there is no step left to do
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_damaged_checkpoint_is_refused_and_train_fallback_resumes_from_the_newest_intact_one(
    go: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from acc_megatron.errors import CheckpointError

    losses = go("run", 2, "train.save_every_steps=1")
    folder = tmp_path / "run" / "checkpoints" / "step_00000002"
    data = bytearray((folder / "__0_0.distcp").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "__0_0.distcp").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"__0_0.distcp is damaged.*or set train.fallback=true"):
        go("run", 2)
    capsys.readouterr()
    assert go("run", 2, "train.fallback=true")[-1] == losses[-1]
    said = capsys.readouterr().err
    assert f"train.fallback: {folder / '__0_0.distcp'} is damaged" in said
    assert "train.fallback: resuming from" in said and "resumed from" in said
    assert (tmp_path / "run" / "checkpoints" / "step_00000002.damaged").is_dir()


def test_carried_files_are_copied_from_checkpoint_to_checkpoint(
    go: Callable[..., list[str]], imported: Path, tmp_path: Path
) -> None:
    initial = tmp_path / "initial"
    shutil.copytree(imported, initial)
    carried = initial / "step_00000000" / "hf"
    expected = {file.name: file.read_bytes() for file in carried.iterdir()}
    assert {"config.json", "generation_config.json"} <= set(expected)
    one = ["train.keep_checkpoints=1", "train.save_every_steps=1"]
    go("run", 1, f"train.init_from={initial}", *one)
    shutil.rmtree(initial)
    go("run", 3, f"train.init_from={initial}", *one, "train.async_save=true")
    kept = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in kept.iterdir()) == ["latest", "step_00000003"]
    assert {file.name: file.read_bytes() for file in (kept / "step_00000003" / "hf").iterdir()} == expected


CHANGED = ["optimizer.learning_rate=1e-3", "optimizer.min_learning_rate=1e-4", "optimizer.weight_decay=0.3",
           "optimizer.schedule=wsd", "optimizer.decay_fraction=0.5", "optimizer.adam_beta2=0.99"]  # fmt: skip


@pytest.mark.parametrize("sharded", [pytest.param("false", marks=pytest.mark.slow), "true"])
def test_rate_schedule_and_weight_decay_may_change_on_resume_and_are_printed(
    sharded: str,
    go: Callable[..., list[str]],
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The reference is one process whose settings change between two steps, without a checkpoint."""
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.config import load_config
    from acc_megatron.training.optimizer import apply_settings
    from acc_megatron.training.resume import restore
    from acc_megatron.training.step import train_step
    from acc_megatron.training.trainer import build_trainer

    both = [*ADAMW, "optimizer.weight_decay=0.01", f"parallel.distributed_optimizer={sharded}"]
    go("changed", 1, *both)
    capsys.readouterr()
    losses = go("changed", 3, *both, *CHANGED)
    said = capsys.readouterr().err
    assert "optimizer.learning_rate = 0.001 (was 0.003)" in said and "optimizer.weight_decay = 0.3 (was 0.01)" in said
    config, later = load_config(recipe, both), load_config(recipe, [*both, *CHANGED])
    with process_groups(config.parallel) as layout:
        trainer = build_trainer(config, layout)
        restore(trainer)
        expected = [train_step(trainer).loss]
        trainer.config = later
        apply_settings(trainer.optimizer, later.optimizer)
        expected += [train_step(trainer).loss for _ in range(2)]
    assert losses == [loss.hex() for loss in expected]


def test_another_kind_of_optimizer_is_refused_by_its_key(go: Callable[..., list[str]]) -> None:
    from acc_megatron.errors import CheckpointError

    go("run", 1)
    with pytest.raises(CheckpointError, match=r"optimizer\.kind = 'sgd', this run has 'adamw': restore it"):
        go("run", 2, "optimizer.kind=adamw")


@pytest.mark.slow
def test_more_epochs_after_the_end_continue_as_if_they_had_been_planned(
    go: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    one_row = ["train.global_batch_rows=1"]
    planned = go("planned", 99, *one_row, "train.epochs=2")
    assert len(go("longer", 99, *one_row, "train.epochs=1")) == 3
    capsys.readouterr()
    assert go("longer", 99, *one_row, "train.epochs=2") == planned and len(planned) == 6
    said = capsys.readouterr().err
    assert "train.epochs = 2 (was 1)" in said and "the schedule has 6 steps (was 3)" in said
    assert "are not trained on" not in said


def test_rows_that_a_longer_run_cannot_train_on_are_counted(
    go: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(go("run", 99, "train.epochs=1")) == 2  # three rows in batches of two
    capsys.readouterr()
    assert len(go("run", 99, "train.epochs=2")) == 3
    assert "1 packed rows of epoch 2 are not trained on" in capsys.readouterr().err


def test_weight_decay_applies_to_matrices_and_not_to_norms(recipe: Path) -> None:
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.config import load_config
    from acc_megatron.training.trainer import build_trainer

    config = load_config(recipe, [*ADAMW, "optimizer.weight_decay=0.1"])
    with process_groups(config.parallel) as layout:
        groups = build_trainer(config, layout).optimizer.param_groups
        decays = {(parameter.dim() > 1, group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert decays == {(True, 0.1), (False, 0.0)}
