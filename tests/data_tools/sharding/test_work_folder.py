"""A work folder belongs to one record and to one state of the code that makes its shards."""

from pathlib import Path

import pytest

from acc_megatron.data_tools.sharding import work_folder
from acc_megatron.data_tools.sharding.work_folder import code_sha256, open_work_folder


def test_changed_code_makes_the_shards_anew_and_unchanged_code_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "reader.py").write_text("A = 1\n")
    monkeypatch.setattr(work_folder, "_CODE_FOLDERS", [code])

    def shards() -> list[str]:
        work = open_work_folder(tmp_path / "out", {"seed": 0})
        names = [path.name for path in work.iterdir() if path.is_dir()]
        (work / f"{len(names):05d}").mkdir()
        return names

    assert shards() == []
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "reader.cpython-311.pyc").write_bytes(b"new")
    (code / "reader.py").touch()
    assert shards() == ["00000"]
    (code / "reader.py").write_text("A = 2\n")
    assert shards() == []
    assert len(list(tmp_path.glob(".out.work-*"))) == 1


def test_the_code_of_a_shard_includes_the_readers_and_what_parses_their_rows() -> None:
    names = {str(path) for folder in work_folder._CODE_FOLDERS for path in folder.rglob("*.py")}
    for name in ("sources/formats/known_formats.py", "convert/render.py", "common/json_rows.py"):
        assert any(found.endswith(name) for found in names), name


def test_a_renamed_file_and_moved_text_are_changed_code(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\ny = 2\n")
    (tmp_path / "b.py").write_text("")
    found = {code_sha256([tmp_path])}
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("y = 2\n")
    found.add(code_sha256([tmp_path]))
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    found.add(code_sha256([tmp_path]))
    assert len(found) == 3
