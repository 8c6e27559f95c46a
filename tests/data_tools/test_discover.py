"""What is an input, what a resource, and what neither, is decided by what lies there."""

import json
import sqlite3
from pathlib import Path

import pytest

from acc_megatron.data_tools.discover import discover
from acc_megatron.data_tools.jsonl import Row
from acc_megatron.data_tools.resources import is_resource
from acc_megatron.data_tools.row_files import rows_of
from acc_megatron.errors import DataError

INSTANCE = {"instance_id": "own__tool-1", "patch": "p", "problem_statement": "Title\nmore"}


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def database(path: Path, name: str = "t") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE {name} (a)")
    connection.close()
    return path


def test_folders_are_walked_by_name_and_other_files_are_listed(tmp_path: Path) -> None:
    for name in ("b/run.traj", "a.jsonl", "c.json", ".hidden/x.jsonl", "README.md"):
        write(tmp_path / name, {})
    found = discover([tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in found.files] == ["a.jsonl", "b/run.traj", "c.json"]
    assert [path.name for path in found.ignored] == ["README.md"]


@pytest.mark.parametrize("as_text", [False, True])
def test_resources_among_the_inputs_are_found_wherever_they_stand(tmp_path: Path, as_text: bool) -> None:
    files = {"a.py": "text"}  # as JSON text where a table has one type a column
    store = {"instance_id": "own__tool-1", "files_at_base_commit": json.dumps(files) if as_text else files}
    write(tmp_path / "mixed.jsonl", {"question": 1}, INSTANCE, {"instance_id": 3, "patch": "x"}, store)
    database(tmp_path / "db" / "Shop.sqlite")
    resources = discover([tmp_path]).resources
    assert resources.num_rows == 2
    assert resources.instance("own__tool-1") == INSTANCE and resources.files("own__tool-1") == {"a.py": "text"}
    assert resources.database("SHOP") == tmp_path / "db" / "Shop.sqlite" and resources.database("none") is None


def test_a_run_that_carries_its_patch_is_no_resource(tmp_path: Path) -> None:
    write(tmp_path / "runs.jsonl", INSTANCE | {"trajectory": []})
    assert discover([tmp_path]).resources.num_rows == 0


def test_predictions_beside_the_runs_are_neither_runs_nor_instances(tmp_path: Path) -> None:
    patch = {"instance_id": "o__t-1", "model_name_or_path": "m", "model_patch": "p"}
    (tmp_path / "preds.json").write_text(json.dumps({"o__t-1": patch, "o__t-2": patch | {"model_patch": None}}))
    (tmp_path / "all_preds.jsonl").write_text(json.dumps(patch) + "\n")
    found = discover([tmp_path])
    rows = [row for path in found.files for row in rows_of(path)]
    assert len(rows) == 2 and all(isinstance(row, Row) and is_resource(row.value) for row in rows)
    assert not found.resources.instances
    for run in ({"messages": []}, {"trajectory": []}):
        assert not is_resource(patch | run), "a run that carries its patch"
    assert not is_resource({}) and not is_resource({"a": {}})


def test_one_file_given_twice_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", INSTANCE)
    found = discover([path, tmp_path], [tmp_path])
    assert found.files == (path,) and found.resources.num_rows == 1


def test_unreadable_resource_rows_are_kept_apart(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", {})
    (tmp_path / "more.jsonl").write_text(json.dumps(INSTANCE) + "\n{broken\n")
    resources = discover([tmp_path / "in"], [tmp_path / "more.jsonl"]).resources
    assert resources.num_rows == 1 and [row.reason for row in resources.bad_rows] == ["broken_json"]


def test_contradicting_resources_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", INSTANCE, INSTANCE)
    assert discover([tmp_path]).resources.num_rows == 2  # the same twice is no contradiction
    write(tmp_path / "b.jsonl", INSTANCE | {"patch": "other"})
    with pytest.raises(DataError, match=r"b\.jsonl:1.*own__tool-1.*a\.jsonl:1"):
        discover([tmp_path])


def test_two_different_databases_of_one_name_are_refused(tmp_path: Path) -> None:
    database(tmp_path / "x" / "shop.sqlite")
    database(tmp_path / "y" / "SHOP.db", "other")
    write(tmp_path / "a.jsonl", {})
    with pytest.raises(DataError, match="two different databases"):
        discover([tmp_path])


def test_a_resource_that_changes_while_in_use_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", INSTANCE)
    resources = discover([path]).resources
    write(path, INSTANCE | {"instance_id": "own__tool-2"})
    with pytest.raises(DataError, match="changed"):
        resources.instance("own__tool-1")


@pytest.mark.parametrize("name", ["absent.jsonl", "notes.txt", "empty"])
def test_wrong_inputs_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        discover([tmp_path / name])


def test_rows_come_by_line_or_by_document(tmp_path: Path) -> None:
    (tmp_path / "run.traj").write_text('{\n"a": 1}')
    assert len(list(rows_of(write(tmp_path / "a.jsonl", {}, {})))) == 2
    assert len(list(rows_of(tmp_path / "run.traj"))) == 1
