"""Saving under faults: kills, a full disk, no rights, damaged bytes; the checkpoint before is never lost."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from make_inputs import TINY_MODEL

STATE = {"step": 0, "model": {}}


@pytest.fixture
def chunks() -> Iterator[list[torch.nn.Module]]:
    """A tiny model in a world of one process."""
    yield from built()


def built() -> Iterator[list[torch.nn.Module]]:
    from acc_megatron.distributed import process_groups  # isort: split
    from acc_megatron.config import ModelConfig, ParallelConfig
    from acc_megatron.model.qwen3_moe import build_model
    from acc_megatron.model.transformer_config import transformer_config

    model = ModelConfig(**(TINY_MODEL | {"vocab_size": 512}))
    with process_groups(ParallelConfig()) as layout:
        yield [build_model(model, transformer_config(model, layout, precision="float32"))]


def fill(chunks: list[torch.nn.Module], value: float) -> None:
    """Make every weight `value`, so that what is loaded says which checkpoint it came from."""
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
    """The weights after loading what `latest` names, which must verify."""
    from acc_megatron.checkpoint import locate, store

    folder = locate.latest(run)
    assert folder is not None
    store.verify(folder)
    fill(chunks, -1.0)
    store.load(folder, chunks, None)
    return values(chunks)


def _at_call(owner: Any, name: str, call: int = 1, after: bool = False) -> Callable[[], None]:
    """Arrange that this process kills itself at the `call`-th call of a function, before or after it runs."""

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
        "before the manifest": _at_call(store.Save, "_write_manifest"),
        "before the rename": _at_call(store, "publish_folder"),
        "before latest is moved": _at_call(store, "point_latest"),
    }


def test_a_crash_while_saving_loses_only_that_save(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from test_store import die_at_every_point; "
        "die_at_every_point(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, timeout=240, cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    points = kill_points()
    assert json.loads(done.stdout.splitlines()[-1]) == dict.fromkeys(points, -signal.SIGKILL)
    for _ in built_once():
        for point in points:
            run = tmp_path / point.replace(" ", "_")
            assert (run / "latest").read_text() == "step_00000001\n", point
            assert load_latest(run, _) == {1.0}, point
            save_step(run, _, 2)  # what the killed save left does not stand in the way
            assert load_latest(run, _) == {2.0}, point
            from acc_megatron.checkpoint import store

            store.prune(run, 1)
            assert sorted(path.name for path in run.iterdir()) == ["latest", "step_00000002"], point


def built_once() -> Iterator[list[torch.nn.Module]]:
    yield from built()


def die_at_every_point(folder: Path) -> None:
    """Save step 1, then die while saving step 2: one forked process a point; prints how each ended."""
    points = kill_points()
    ends = {}
    for name, arrange in points.items():
        process = os.fork()
        if not process:
            for chunks in built():
                run = folder / name.replace(" ", "_")
                save_step(run, chunks, 1)
                arrange()
                save_step(run, chunks, 2)
            os._exit(0)
        ends[name] = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    print(json.dumps(ends))


def test_every_flipped_byte_is_refused_by_the_name_of_its_file_and_both_hashes(
    chunks: list[torch.nn.Module], tmp_path: Path
) -> None:
    from acc_megatron.checkpoint import store
    from acc_megatron.data_tools.atomic import sha256_file
    from acc_megatron.errors import CheckpointError

    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "tokenizer.json").write_text("{}")
    folder = save_step(tmp_path / "run", chunks, 1, tmp_path / "hf")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != store.MANIFEST]
    assert {".metadata", "__0_0.distcp", "metadata.json", "state.json", "tokenizer.json"} == {f.name for f in files}
    for file in files:
        good, expected = file.read_bytes(), sha256_file(file)
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 1
        file.write_bytes(bad)
        with pytest.raises(CheckpointError) as caught:
            store.verify(folder)
        assert str(file) in str(caught.value)
        assert expected in str(caught.value) and sha256_file(file) in str(caught.value)
        file.write_bytes(good)
    manifest = folder / store.MANIFEST
    text = manifest.read_text()
    manifest.write_text(text.replace(sha256_file(files[0]), "0" * 64))
    with pytest.raises(CheckpointError, match=r"manifest.json is damaged: its entries have sha256 \w{64}, expected"):
        store.verify(folder)
    manifest.write_text(text)
    store.verify(folder)


def test_the_newest_good_checkpoint_is_found_and_the_damaged_ones_are_set_aside(
    chunks: list[torch.nn.Module], tmp_path: Path
) -> None:
    from acc_megatron.checkpoint import store
    from acc_megatron.errors import CheckpointError

    for step in (1, 2, 3):
        save_step(tmp_path, chunks, step)
    (tmp_path / "step_00000003" / "state.json").unlink()
    victim = tmp_path / "step_00000002" / "__0_0.distcp"
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"state\.json is missing"):
        load_latest(tmp_path, chunks)
    folder, reasons = store.newest_good(tmp_path)
    assert folder == tmp_path / "step_00000001"
    assert "step_00000003/state.json is missing" in reasons[0] and f"{victim} is damaged" in reasons[1]
    assert load_latest(tmp_path, chunks) == {1.0}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["latest", "step_00000001", "step_00000002.damaged", "step_00000003.damaged"]


def test_retention_never_removes_what_latest_names(chunks: list[torch.nn.Module], tmp_path: Path) -> None:
    from acc_megatron.checkpoint import store

    for step in (1, 2, 3):
        save_step(tmp_path, chunks, step)
    store.point_latest(tmp_path / "step_00000001")
    store.prune(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_00000001", "step_00000003"]
    assert load_latest(tmp_path, chunks) == {1.0}


def test_a_staged_save_holds_the_weights_of_its_moment(chunks: list[torch.nn.Module], tmp_path: Path) -> None:
    from acc_megatron.checkpoint import locate, store, writer

    fill(chunks, 1.0)
    original, gate = writer.RankWriter._write, threading.Event()

    def write_late(self: Any) -> None:
        gate.wait(30)
        original(self)

    writer.RankWriter._write = write_late  # type: ignore[method-assign]
    try:
        saving = store.Save(tmp_path / "step_00000001", chunks, None, STATE, stage=True)
        fill(chunks, 5.0)  # training goes on
        assert not saving.is_written() and locate.latest(tmp_path) is None
        gate.set()
        saving.finish()
    finally:
        writer.RankWriter._write = original  # type: ignore[method-assign]
    assert load_latest(tmp_path, chunks) == {1.0}


@pytest.mark.parametrize("stage", [False, True], ids=["waited for", "in the background"])
def test_a_full_disk_fails_the_save_by_one_line_and_the_checkpoint_before_stays(
    stage: bool, chunks: list[torch.nn.Module], tmp_path: Path
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
        saving = store.Save(disk / "step_00000002", chunks, None, STATE, stage=stage)
        with pytest.raises(CheckpointError) as caught:
            saving.finish()
        assert "rank 0: OSError: [Errno 28] No space left on device" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert sorted(path.name for path in disk.iterdir()) == ["latest", "step_00000001"], "the half is gone"
        assert load_latest(disk, chunks) == {1.0}
        shutil.rmtree(disk / "step_00000001")
        save_step(disk, chunks, 3)
        assert load_latest(disk, chunks) == {3.0}, "the next save goes well once there is room"
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


CAP_DAC_OVERRIDE = 1


@pytest.fixture
def without_override() -> Iterator[None]:
    """Root may write anywhere: take that capability from this thread for a while."""
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


def test_a_folder_without_rights_is_refused_by_one_line(
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
