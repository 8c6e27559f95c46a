"""A run and its own checkpoints: resumed with any optimizer, saved in the background, gone back to, and complete."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ADAMW = ["optimizer.kind=adamw", "optimizer.learning_rate=3e-3", "optimizer.clip_grad_norm=1.0"]


@pytest.fixture
def go(recipe: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Train a run in this process to a step; its logged losses as hexadecimal floats."""

    def run(name: str, max_steps: int, *overrides: str) -> list[str]:
        from acc_megatron.config import load_config
        from acc_megatron.observe.metrics import read_steps
        from acc_megatron.train import train

        settings = [f"train.run_dir={tmp_path / name}", f"train.max_steps={max_steps}", *overrides]
        train(load_config(recipe, settings))
        return [step["loss"].hex() for step in read_steps(tmp_path / name)]

    return run


def entry(run_dir: Path, step: int, file: str = "__0_0.distcp") -> dict[str, Any]:
    from acc_megatron.checkpoint.store import read_json

    return read_json(run_dir / "checkpoints" / f"step_{step:08d}" / "manifest.json")["files"][file]


def test_a_run_with_sgd_resumes_as_if_it_had_never_stopped(go: Callable[..., list[str]]) -> None:
    whole = go("whole", 3)
    go("parts", 1)
    assert go("parts", 3) == whole
    assert len(set(whole)) == 3


def test_a_run_that_saves_in_the_background_writes_the_same_checkpoints_and_resumes_from_them(
    go: Callable[..., list[str]], tmp_path: Path
) -> None:
    both = [*ADAMW, "parallel.distributed_optimizer=true", "train.save_every_steps=1", "train.keep_checkpoints=9"]
    waited = go("waited", 3, *both)
    background = go("background", 3, *both, "train.async_save=true")
    assert background == waited
    for step in (1, 2, 3):
        assert entry(tmp_path / "background", step) == entry(tmp_path / "waited", step), step
    shutil.rmtree(tmp_path / "background" / "checkpoints" / "step_00000003")
    (tmp_path / "background" / "checkpoints" / "latest").write_text("step_00000002\n")
    assert go("background", 3, *both, "train.async_save=true")[-1] == waited[-1]
    assert entry(tmp_path / "background", 3) == entry(tmp_path / "waited", 3)


def test_a_failed_save_in_the_background_ends_the_run_and_the_checkpoint_before_stays_good(
    go: Callable[..., list[str]], tmp_path: Path
) -> None:
    from acc_megatron.errors import CheckpointError

    disk = tmp_path / "run"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with pytest.raises(CheckpointError, match=r"rank 0: OSError: .Errno 28. No space left on device"):
            go("run", 4, "train.async_save=true", "train.save_every_steps=1")
        assert (disk / "checkpoints" / "latest").read_text() == "step_00000001\n"
        assert go("run", 1, "train.save_every_steps=9")  # loads: nothing to do up to step 1
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_damaged_checkpoint_is_refused_and_train_fallback_goes_on_from_the_last_good_one(
    go: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from acc_megatron.errors import CheckpointError

    whole = go("run", 2, "train.save_every_steps=1")
    folder = tmp_path / "run" / "checkpoints" / "step_00000002"
    data = bytearray((folder / "__0_0.distcp").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "__0_0.distcp").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"__0_0.distcp is damaged.*or set train.fallback=true"):
        go("run", 2)
    capsys.readouterr()
    assert go("run", 2, "train.fallback=true")[-1] == whole[-1]
    said = capsys.readouterr().err
    assert f"train.fallback: {folder / '__0_0.distcp'} is damaged" in said
    assert "train.fallback: going on from" in said and "resumed from" in said
    assert (tmp_path / "run" / "checkpoints" / "step_00000002.damaged").is_dir()


def test_files_carried_along_survive_from_checkpoint_to_checkpoint_without_the_first_one(
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
