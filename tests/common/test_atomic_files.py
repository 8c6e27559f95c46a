"""Files and folders appear complete or not at all, and are on disk before they get their name."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from acc_megatron.common import atomic_files as atomic
from acc_megatron.common.atomic_files import atomic_file, atomic_folder, publish_folder, sha256_file, write_json
from acc_megatron.errors import DataError

KILLED = """
import os, signal, sys
from pathlib import Path
from acc_megatron.common import atomic_files as atomic
from acc_megatron.common.atomic_files import atomic_file, atomic_folder
path, kind = Path(sys.argv[1]), sys.argv[2]
with (atomic_folder if kind == "folder" else atomic_file)(path) as target:
    (target / "a").write_bytes(b"new") if kind == "folder" else target.write(b"new")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_appears_complete_when_the_block_ends(tmp_path: Path) -> None:
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


def test_a_new_folder_replaces_the_old_one_completely(tmp_path: Path) -> None:
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
    assert not path.exists() and len(list(tmp_path.iterdir())) == 1, "only the temporary file is left"


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
    assert re.fullmatch(r"a\..+\.tmp", events[0]) and events[1:] == ["-> a", tmp_path.name]
    events.clear()
    new = tmp_path / "new"
    (new / "inner").mkdir(parents=True)
    (new / "inner" / "b").touch()
    publish_folder(new, tmp_path / "data")
    assert sorted(events[:2]) == ["b", "inner"] and events[2:] == ["new", "-> data", tmp_path.name]


class PowerCut(BaseException):
    """Raised in place of a system call that a real kill could interrupt."""


def cut(*arguments: object, **named: object) -> None:
    raise PowerCut


def replace_old_by_new(path: Path) -> None:
    with atomic_folder(path) as folder:
        (folder / "new").touch()


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_kill_while_a_folder_is_replaced_leaves_one_of_the_two_intact(
    can_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data"
    with atomic_folder(path) as folder:
        (folder / "old").touch()
    if can_exchange:
        monkeypatch.setattr(Path, "replace", cut)
        replace_old_by_new(path)
        assert names(path) == ["new"], "the exchange is a single step"
        return
    monkeypatch.setattr(atomic, "_exchange", lambda *paths: False)
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


def test_hash_and_json_are_as_expected(tmp_path: Path) -> None:
    path = tmp_path / "a"
    data = bytes(range(256)) * 9_000
    path.write_bytes(data)
    assert sha256_file(path) == hashlib.sha256(data).hexdigest()
    write_json(path, {"b": ["é"], "a": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "b": [\n    "é"\n  ],\n  "a": 1\n}\n'


def test_two_processes_with_the_same_id_do_not_write_the_same_temporary_file(tmp_path: Path) -> None:
    """As in the containers of one job, which share a folder and may have the same process ids."""
    path = tmp_path / "plan.json"
    with atomic_file(path) as first:
        first.write(b"first")
        with atomic_file(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


def test_remains_of_killed_processes_are_removed_and_files_of_live_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "d[a]ta"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path), "folder"], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    with atomic_folder(path) as live:
        assert not left.exists()
        with atomic_folder(path) as other:
            (other / "a").touch()
        assert live.is_dir()
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed_and_the_current_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch" / "data").mkdir(parents=True)
    (tmp_path / "link").symlink_to("scratch/data")
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "link") as folder:
            (folder / "a").write_text(text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "scratch" / "data" / "a").read_text() == text
    assert [file.name for file in (tmp_path / "scratch").iterdir()] == ["data"]
    monkeypatch.chdir(tmp_path / "scratch" / "data")
    for path in (Path(), Path(".."), tmp_path / "link"):
        with pytest.raises(DataError, match="is or contains the current folder"), atomic_folder(path):
            pass
    assert Path("a").read_text() == "new"
