"""Saving under faults: kills, a full disk, missing permissions, damaged bytes; the previous checkpoint survives."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support.make_inputs import TINY_MODEL
from support.run_processes import start

STATE = {"step": 0, "model": {}}


@pytest.fixture
def chunks() -> Iterator[list[torch.nn.Module]]:
    """A tiny model in a world of one process."""
    with built_model() as model_chunks:
        yield model_chunks


@contextmanager
def built_model() -> Iterator[list[torch.nn.Module]]:
    """Build the model; the process groups end with the context."""
    from acc_megatron.mesh.process_groups import process_groups  # isort: split
    from acc_megatron.config import ModelConfig, ParallelConfig
    from acc_megatron.model.build import build_model
    from acc_megatron.model.transformer_config import transformer_config

    model = ModelConfig(**(TINY_MODEL | {"vocab_size": 512}))
    with process_groups(ParallelConfig()) as layout:
        yield [build_model(model, transformer_config(model, layout, precision="float32"))]


def fill(chunks: list[torch.nn.Module], value: float) -> None:
    """Set every weight to `value`, so that loaded weights show which checkpoint they come from."""
    with torch.no_grad():
        for parameter in chunks[0].parameters():
            parameter.fill_(value)


def values(chunks: list[torch.nn.Module]) -> set[float]:
    return {float(v) for parameter in chunks[0].parameters() for v in parameter.detach().unique()}


def save_step(run: Path, chunks: list[torch.nn.Module], step: int, carried: Path | None = None) -> Path:
    from acc_megatron.checkpoint import store

    fill(chunks, float(step))
    folder = run / f"step_{step:08d}"
    store.save(folder, chunks, None, STATE | {"step": step}, carried)
    return folder


def load_latest(run: Path, chunks: list[torch.nn.Module]) -> set[float]:
    """Verify and load the checkpoint that `latest` names; returns the distinct weights."""
    from acc_megatron.checkpoint import integrity, locate, store

    folder = locate.latest(run)
    assert folder is not None
    integrity.verify(folder)
    fill(chunks, -1.0)
    store.load(folder, chunks, None)
    return values(chunks)


def _at_call(owner: Any, name: str, call: int = 1, after: bool = False) -> Callable[[], None]:
    """Return a function that makes this process kill itself at the `call`-th call of a function."""

    def arrange() -> None:
        original, seen = getattr(owner, name), [0]

        def die(*args: Any, **kwargs: Any) -> Any:
            seen[0] += 1
            result = original(*args, **kwargs) if after or seen[0] != call else None
            if seen[0] == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, die)

    return arrange


def kill_points() -> dict[str, Callable[[], None]]:
    from acc_megatron.checkpoint import store, writer

    return {
        "before the plan": _at_call(store.dist_checkpointing, "save"),
        "in the middle of the tensors": _at_call(writer, "_write_item", call=9),
        "before the metadata": _at_call(writer.RankWriter, "finish"),
        "before the manifest": _at_call(store, "write_manifest"),
        "before the rename": _at_call(store, "publish_folder"),
        "before latest is moved": _at_call(store, "point_latest"),
    }


def test_a_crash_while_saving_loses_only_that_save(chunks: list[torch.nn.Module], tmp_path: Path) -> None:
    from acc_megatron.checkpoint import locate

    assert start(tmp_path / "output", tmp_path, body=die_at_every_point).wait() == [0]
    points = kill_points()
    assert json.loads((tmp_path / "exit_codes.json").read_text()) == dict.fromkeys(points, -signal.SIGKILL)
    for point in points:
        run = tmp_path / point.replace(" ", "_")
        assert (run / "latest").read_text() == "step_00000001\n", point
        assert load_latest(run, chunks) == {1.0}, point
        save_step(run, chunks, 2)  # leftovers of the killed save do not prevent it
        assert load_latest(run, chunks) == {2.0}, point
        locate.prune(run, 1)
        assert sorted(path.name for path in run.iterdir()) == ["latest", "step_00000002"], point


def die_at_every_point(folder: Path) -> None:
    """Save step 1, then die while saving step 2: one forked process per point. Writes the exit codes to a file."""
    points = kill_points()
    ends = {}
    for name, arrange in points.items():
        process = os.fork()
        if not process:
            with built_model() as chunks:
                run = folder / name.replace(" ", "_")
                save_step(run, chunks, 1)
                arrange()
                save_step(run, chunks, 2)
            os._exit(0)
        ends[name] = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    (folder / "exit_codes.json").write_text(json.dumps(ends))


def test_every_damaged_file_is_refused_with_its_name_and_both_hashes(
    chunks: list[torch.nn.Module], tmp_path: Path
) -> None:
    from acc_megatron.checkpoint import integrity, locate
    from acc_megatron.common.atomic_files import sha256_file
    from acc_megatron.errors import CheckpointError

    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "tokenizer.json").write_text("{}")
    folder = save_step(tmp_path / "run", chunks, 1, tmp_path / "hf")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != locate.MANIFEST]
    assert {".metadata", "__0_0.distcp", "metadata.json", "state.json", "tokenizer.json"} == {f.name for f in files}
    for file in files:
        good, expected = file.read_bytes(), sha256_file(file)
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 1
        file.write_bytes(bad)
        with pytest.raises(CheckpointError) as caught:
            integrity.verify(folder)
        assert str(file) in str(caught.value)
        assert expected in str(caught.value) and sha256_file(file) in str(caught.value)
        file.write_bytes(good)
    manifest = folder / locate.MANIFEST
    text = manifest.read_text()
    manifest.write_text(text.replace(sha256_file(files[0]), "0" * 64))
    with pytest.raises(CheckpointError, match=r"manifest.json is damaged: its entries have sha256 \w{64}, expected"):
        integrity.verify(folder)
    manifest.write_text(text)
    integrity.verify(folder)


def test_a_checkpoint_without_optimizer_state_is_not_resumed_and_the_error_says_what_to_do(
    chunks: list[torch.nn.Module], tmp_path: Path
) -> None:
    from acc_megatron.checkpoint import store
    from acc_megatron.errors import CheckpointError

    folder = save_step(tmp_path, chunks, 1)
    optimizer: Any = object()  # refused before it is touched
    with pytest.raises(CheckpointError, match=f"{folder} has no optimizer state.*train.init_from={folder}"):
        store.load(folder, chunks, optimizer)


def test_the_newest_intact_checkpoint_is_found_and_damaged_ones_are_renamed(
    chunks: list[torch.nn.Module], tmp_path: Path
) -> None:
    from acc_megatron.checkpoint import integrity
    from acc_megatron.errors import CheckpointError

    for step in (1, 2, 3):
        save_step(tmp_path, chunks, step)
    (tmp_path / "step_00000003" / "state.json").unlink()
    victim = tmp_path / "step_00000002" / "__0_0.distcp"
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"state\.json is missing"):
        load_latest(tmp_path, chunks)
    folder, reasons = integrity.newest_intact(tmp_path)
    assert folder == tmp_path / "step_00000001"
    assert "step_00000003/state.json is missing" in reasons[0] and f"{victim} is damaged" in reasons[1]
    assert load_latest(tmp_path, chunks) == {1.0}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["latest", "step_00000001", "step_00000002.damaged", "step_00000003.damaged"]


def test_old_checkpoints_are_removed_except_the_one_that_latest_names(
    chunks: list[torch.nn.Module], tmp_path: Path
) -> None:
    from acc_megatron.checkpoint import locate

    for step in (1, 2, 3):
        save_step(tmp_path, chunks, step)
    locate.point_latest(tmp_path / "step_00000001")
    locate.prune(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_00000001", "step_00000003"]
    assert load_latest(tmp_path, chunks) == {1.0}


def test_a_staged_save_has_the_weights_of_the_moment_it_started(chunks: list[torch.nn.Module], tmp_path: Path) -> None:
    from acc_megatron.checkpoint import locate, store, writer

    fill(chunks, 1.0)
    original, gate = writer.RankWriter._write, threading.Event()

    def write_late(self: Any) -> None:
        gate.wait(30)
        original(self)

    writer.RankWriter._write = write_late  # type: ignore[method-assign]
    try:
        saving = store.Save(tmp_path / "step_00000001", chunks, None, STATE, is_staged=True)
        fill(chunks, 5.0)  # training continues
        assert not saving.is_written() and locate.latest(tmp_path) is None
        gate.set()
        saving.finish()
    finally:
        writer.RankWriter._write = original  # type: ignore[method-assign]
    assert load_latest(tmp_path, chunks) == {1.0}


@pytest.mark.parametrize("is_staged", [False, True], ids=["waited for", "in the background"])
def test_a_full_disk_fails_the_save_with_one_line_and_the_previous_checkpoint_stays(
    is_staged: bool, chunks: list[torch.nn.Module], tmp_path: Path
) -> None:
    from acc_megatron.checkpoint import store
    from acc_megatron.errors import CheckpointError

    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        save_step(disk, chunks, 1)
        fill(chunks, 2.0)
        saving = store.Save(disk / "step_00000002", chunks, None, STATE, is_staged=is_staged)
        with pytest.raises(CheckpointError) as caught:
            saving.finish()
        assert "rank 0: OSError: [Errno 28] No space left on device" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert sorted(path.name for path in disk.iterdir()) == ["latest", "step_00000001"], (
            "the incomplete checkpoint must be removed"
        )
        assert load_latest(disk, chunks) == {1.0}
        shutil.rmtree(disk / "step_00000001")
        save_step(disk, chunks, 3)
        assert load_latest(disk, chunks) == {3.0}, "the next save must succeed once there is space"
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


CAP_DAC_OVERRIDE = 1


@pytest.fixture
def without_override() -> Iterator[None]:
    """Remove the capability to write everywhere from this thread, if it has it."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    before = data[0]
    data[0] = before & ~(1 << CAP_DAC_OVERRIDE)
    assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno())
    yield
    data[0] = before
    assert libc.capset(header, data) == 0


def test_a_folder_without_write_permission_is_refused_with_one_line(
    chunks: list[torch.nn.Module], tmp_path: Path, without_override: None
) -> None:
    from acc_megatron.errors import CheckpointError

    save_step(tmp_path / "run", chunks, 1)
    (tmp_path / "run").chmod(0o500)
    with pytest.raises(CheckpointError) as caught:
        save_step(tmp_path / "run", chunks, 2)
    (tmp_path / "run").chmod(0o700)
    assert "cannot prepare" in str(caught.value) and "Permission denied" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load_latest(tmp_path / "run", chunks) == {1.0}
