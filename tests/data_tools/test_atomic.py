"""Files and folders appear whole or not at all, on disk before they have their name."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from acc_megatron.data_tools import atomic
from acc_megatron.data_tools.atomic import atomic_file, atomic_folder, publish_folder, sha256_file, write_json

KILLED = """
import os, signal, sys
from pathlib import Path
from acc_megatron.data_tools import atomic
from acc_megatron.data_tools.atomic import atomic_file, atomic_folder
path, kind = Path(sys.argv[1]), sys.argv[2]
with (atomic_folder if kind == "folder" else atomic_file)(path) as target:
    (target / "a").write_bytes(b"new") if kind == "folder" else target.write(b"new")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.bin"
    with atomic_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole" and list(path.parent.iterdir()) == [path]


def test_a_failed_block_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_failed_block_leaves_the_old_folder_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with atomic_folder(path) as folder:
        (folder / "a").write_text("old")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as folder:
        (folder / "a").write_text("new")
        raise KeyboardInterrupt
    assert (path / "a").read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_new_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "data"
    for name in ("old", "new"):
        with atomic_folder(path) as folder:
            (folder / name).touch()
    assert [file.name for file in path.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_process_publishes_nothing(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "target"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), kind], check=False)
    assert done.returncode == -9
    assert not path.exists() and len(list(tmp_path.iterdir())) == 1, "the temporary alone is left"


def test_bytes_are_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.lstrip("."))
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        events.append(f"-> {target.name}")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    with atomic_file(tmp_path / "a") as file:
        file.write(b"x")
    assert events == [f"a.{os.getpid()}.tmp", "-> a", tmp_path.name]
    events.clear()
    new = tmp_path / "new"
    (new / "inner").mkdir(parents=True)
    (new / "inner" / "b").touch()
    publish_folder(new, tmp_path / "data")
    assert sorted(events[:2]) == ["b", "inner"] and events[2:] == ["new", "-> data", tmp_path.name]


class PowerCut(BaseException):
    """Raised in place of a system call, where a real kill could fall."""


def cut(*arguments: object, **named: object) -> None:
    raise PowerCut


def replace_old_by_new(path: Path) -> None:
    with atomic_folder(path) as folder:
        (folder / "new").touch()


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_kill_while_a_folder_is_replaced_leaves_one_of_the_two_whole(
    can_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data"
    with atomic_folder(path) as folder:
        (folder / "old").touch()
    if can_exchange:
        monkeypatch.setattr(Path, "replace", cut)
        replace_old_by_new(path)
        assert names(path) == ["new"], "one step, so there is no moment between two"
        return
    monkeypatch.setattr(atomic, "_exchanged", lambda *paths: False)
    for fault, left in (("replace", ["old"]), ("rmtree", ["new"])):
        with monkeypatch.context() as patch:
            real, folder = Path.replace, tmp_path / ".data.made"
            folder.mkdir()
            (folder / "new").touch()
            if fault == "replace":  # the second of two
                patch.setattr(
                    Path, "replace", lambda self, to, real=real: real(self, to) if to.name[0] == "." else cut()
                )
            else:
                patch.setattr(shutil, "rmtree", cut)
            with pytest.raises(PowerCut):
                publish_folder(folder, path)
        assert names(tmp_path / ".data.old") == ["old"]
        with pytest.raises(KeyboardInterrupt), atomic_folder(path):
            assert names(path) == left, "found again by the next start"
            raise KeyboardInterrupt
        shutil.rmtree(folder, ignore_errors=True)
        assert names(tmp_path) == ["data"]
    replace_old_by_new(path)
    assert names(path) == ["new"] and names(tmp_path) == ["data"]


def test_hash_and_json_are_those_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    data = bytes(range(256)) * 9_000
    path.write_bytes(data)
    assert sha256_file(path) == hashlib.sha256(data).hexdigest()
    write_json(path, {"b": ["é"], "a": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "b": [\n    "é"\n  ],\n  "a": 1\n}\n'
