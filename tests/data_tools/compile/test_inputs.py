"""Which files are inputs, resources or neither."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acc_megatron.common.json_rows import BadRow, Row
from acc_megatron.data_tools.compile.inputs import Inputs, discover
from acc_megatron.data_tools.rows.row_files import rows_of
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of, describe_row
from acc_megatron.data_tools.sources.resources import is_resource
from acc_megatron.data_tools.sources.sql.runs import run_of
from acc_megatron.errors import DataError, Dropped

RUN = {"question": "q", "steps": [{"tool": "search", "input": "x", "output": "y"}], "answer": "a"}
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


def test_folders_are_read_in_the_order_of_names_and_other_files_are_listed(tmp_path: Path) -> None:
    for name in ("b/run.traj", "a.jsonl", "c.json", ".hidden/x.jsonl", "README.md"):
        write(tmp_path / name, {})
    found = discover([tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in found.files] == ["a.jsonl", "b/run.traj", "c.json"]
    assert [path.name for path in found.ignored] == ["README.md"]


@pytest.mark.parametrize("as_text", [False, True])
def test_resources_among_the_inputs_are_found_in_any_place(tmp_path: Path, as_text: bool) -> None:
    files = {"a.py": "text"}  # JSON text, for tables with one type in each column
    store = {"instance_id": "own__tool-1", "files_at_base_commit": json.dumps(files) if as_text else files}
    write(tmp_path / "mixed.jsonl", {"question": 1}, INSTANCE, {"instance_id": 3, "patch": "x"}, store)
    database(tmp_path / "db" / "Shop.sqlite")
    resources = discover([tmp_path]).resources
    assert resources.num_rows == 2
    assert resources.instance("own__tool-1") == INSTANCE and resources.files("own__tool-1") == {"a.py": "text"}
    assert resources.database("SHOP") == tmp_path / "db" / "Shop.sqlite" and resources.database("none") is None


def test_a_run_with_its_patch_is_not_a_resource(tmp_path: Path) -> None:
    write(tmp_path / "runs.jsonl", INSTANCE | {"trajectory": []})
    assert discover([tmp_path]).resources.num_rows == 0


def test_predictions_next_to_runs_are_neither_runs_nor_instances(tmp_path: Path) -> None:
    patch = {"instance_id": "o__t-1", "model_name_or_path": "m", "model_patch": "p"}
    (tmp_path / "preds.json").write_text(json.dumps({"o__t-1": patch, "o__t-2": patch | {"model_patch": None}}))
    (tmp_path / "all_preds.jsonl").write_text(json.dumps(patch) + "\n")
    found = discover([tmp_path])
    rows = [row for path in found.files for row in rows_of(path)]
    assert len(rows) == 2 and all(isinstance(row, Row) and is_resource(row.value) for row in rows)
    assert not found.resources.instances
    for run in ({"messages": []}, {"trajectory": []}):
        assert not is_resource(patch | run), "a run with its patch"
    assert not is_resource({}) and not is_resource({"a": {}})


def test_one_file_given_twice_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", INSTANCE)
    found = discover([path, tmp_path], [tmp_path])
    assert found.files == (path,) and found.resources.num_rows == 1


def test_unreadable_resource_rows_are_listed_separately(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", {})
    (tmp_path / "more.jsonl").write_text(json.dumps(INSTANCE) + "\n{broken\n")
    resources = discover([tmp_path / "in"], [tmp_path / "more.jsonl"]).resources
    assert resources.num_rows == 1 and [row.reason for row in resources.bad_rows] == ["broken_json"]


def test_contradicting_resources_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", INSTANCE, INSTANCE)
    assert discover([tmp_path]).resources.num_rows == 2  # the same instance twice is accepted
    write(tmp_path / "b.jsonl", INSTANCE | {"patch": "other"})
    with pytest.raises(DataError, match=r"b\.jsonl:1.*own__tool-1.*a\.jsonl:1"):
        discover([tmp_path])


def test_two_different_databases_of_one_name_are_refused(tmp_path: Path) -> None:
    database(tmp_path / "x" / "shop.sqlite")
    database(tmp_path / "y" / "SHOP.db", "other")
    write(tmp_path / "a.jsonl", {})
    with pytest.raises(DataError, match="two different databases have the name"):
        discover([tmp_path])


def test_a_resource_that_changes_during_the_run_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", INSTANCE)
    resources = discover([path]).resources
    write(path, INSTANCE | {"instance_id": "own__tool-2"})
    with pytest.raises(DataError, match="changed"):
        resources.instance("own__tool-1")


@pytest.mark.parametrize("name", ["absent.jsonl", "notes.txt", "empty"])
def test_an_error_names_the_wrong_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        discover([tmp_path / name])


def rows(found: Inputs) -> list[Row | BadRow]:
    return [row for part in found.ranges(2) for row in found.rows(part)]


def test_a_file_without_a_run_in_a_folder_is_ignored_and_a_named_one_is_not(tmp_path: Path) -> None:
    write(tmp_path / "runs.jsonl", RUN, {"unknown": 1})
    for name, value in (
        ("metadata.json", {"date": "today"}),
        ("x/report.json", {"resolved": True}),
        ("x/scores.json", [1, 2]),
        ("x/run.json", RUN),
        ("x/unknown_run.json", {"messages": [{"a": 1}]}),
        ("x/several.json", [{"log": [1]}, {"log": [2]}]),
        ("x/calls.json", [{"name": "ls", "ok": True}, {"name": "cat", "ok": False}]),
    ):
        write(tmp_path / name, value)
    write(tmp_path / "y.jsonl", {"seconds": 1}, {"seconds": 2})
    found = discover([tmp_path])
    contents = [row.value for row in rows(found) if isinstance(row, Row)]
    unknown = {"unknown": 1}
    assert contents == [RUN, unknown, RUN, {"log": [1]}, {"log": [2]}, {"messages": [{"a": 1}]}]
    sidecars = {path.relative_to(tmp_path).as_posix(): text for path, text in found.sidecars.items()}
    assert list(sidecars) == ["metadata.json", "x/calls.json", "x/scores.json", "y.jsonl"]
    assert found.resource_files == (tmp_path / "x" / "report.json",), "the verdict of a test harness is used"
    assert sidecars["metadata.json"].startswith("keys: 'date'; no known format")
    named = discover([tmp_path / "metadata.json", tmp_path / "x" / "run.json", tmp_path / "y.jsonl"])
    assert len(rows(named)) == 4 and not named.sidecars


@pytest.mark.parametrize("runs", [[RUN, RUN | {"n": 2}], {"17": RUN, "x": RUN | {"n": 2}}])
def test_runs_inside_of_a_document_are_rows(tmp_path: Path, runs: Any) -> None:
    for number, value in enumerate(
        ({"mode": "a", "samples": runs, "scores": [1, 2]}, {"meta": {"seed": 1}, "logs": runs})
    ):
        write(tmp_path / str(number) / "runs.json", value)
        found = discover([tmp_path / str(number)])
        contents = [row.value for row in rows(found) if isinstance(row, Row)]
        assert contents == [RUN, RUN | {"n": 2}] and not found.sidecars


def test_json_lines_a_document_and_parquet_give_one_run_the_same_id(tmp_path: Path) -> None:
    steps = [{"tool": "search", "output": "x", "score": 1.0}, {"tool": None, "output": "y", "score": 0.5}]
    run = {"question": "q", "steps": steps, "answer": None, "level": 3}
    write(tmp_path / "a.jsonl", run)
    (tmp_path / "b.jsonl").write_text(json.dumps(dict(reversed(run.items())), separators=(",", ":")))
    (tmp_path / "c.json").write_text(json.dumps(run, indent=2))
    other = {"question": "q2", "steps": [{"tool": "a", "output": "b", "score": 2.0, "more": "z"}], "answer": "x"}
    pq.write_table(pa.Table.from_pylist([run, other | {"level": 2}]), tmp_path / "d.parquet")
    found = rows(discover([tmp_path]))
    digests = [row.sha256 for row in found if isinstance(row, Row)]
    assert len(digests) == 5 and len(set(digests[:4])) == 1 and digests[4] != digests[0]


@pytest.mark.parametrize("given", ["", "snapshots/rev"])
def test_the_links_of_a_hugging_face_cache_are_read_and_its_blobs_are_not_read_again(
    tmp_path: Path, given: str
) -> None:
    cache = tmp_path / "datasets--org--name"
    write(cache / "blobs" / "0123abcd", RUN)
    (cache / "snapshots" / "rev").mkdir(parents=True)
    (cache / "snapshots" / "rev" / "train.jsonl").symlink_to("../../blobs/0123abcd")
    (cache / "snapshots" / "rev" / "other.jsonl").symlink_to(write(tmp_path / "outside.jsonl", RUN))
    found = discover([cache / given])
    assert [path.name for path in found.files] == ["train.jsonl"] and len(rows(found)) == 1
    assert [path.name for path in found.ignored] == ["other.jsonl"]


def test_an_intercode_run_as_published_gets_database_and_gold_query_from_the_file_of_tasks(tmp_path: Path) -> None:
    history = {"actions": ["SELECT 1"], "observations": ["[(1,)]"], "rewards": [1.0]}
    runs = {str(number): {"query": f"How many {number}?", "turn_history": history} for number in range(3)}
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    tasks = [{"query": f"How many {number}?", "db": "shop", "gold": f"SELECT {number}"} for number in (0, 1, 1)]
    for name in ("tasks.json", "tasks.jsonl"):
        lines = "".join(json.dumps(task) + "\n" for task in tasks)
        (tmp_path / name).write_text(json.dumps(tasks) if name.endswith(".json") else lines)
        found = rows(discover([tmp_path / "runs.json"], [tmp_path / name]))
        first, second, third = [row.value for row in found if isinstance(row, Row)]
        assert (first["question"], first["db"], first["gold_sql"]) == ("How many 0?", "shop", "SELECT 0")
        assert second["gold_sql"] == "SELECT 1" and agent_of(second) is AGENT_KINDS["sql"]
        assert "db" not in third and "give InterCode's file of tasks" in describe_row(third)
    ambiguous = write(tmp_path / "other.jsonl", *tasks, tasks[0] | {"db": "other"})
    assert "db" not in rows(discover([tmp_path / "runs.json"], [ambiguous]))[0].value  # type: ignore[union-attr]


def test_rows_are_read_by_line_or_by_document(tmp_path: Path) -> None:
    (tmp_path / "run.traj").write_text('{\n"a": 1}')
    assert len(list(rows_of(write(tmp_path / "a.jsonl", {}, {})))) == 2
    assert len(list(rows_of(tmp_path / "run.traj"))) == 1


def test_the_log_of_a_person_of_intercode_is_a_sql_run(tmp_path: Path) -> None:
    step = {"action": "SELECT name FROM town", "observation": "('Hull',)('Lund',)"}
    run = {
        "environment": "ic_sql",
        "query": "Which towns?",
        "gold": step["action"],
        "reward": 1.0,
        "trajectory": [step],
    }
    write(tmp_path / "tasks.jsonl", {"query": "Which towns?", "db": "towns", "gold": step["action"]})
    write(tmp_path / "runs" / "run.json", {"5": run})
    (row,) = rows(discover([tmp_path / "runs"], [tmp_path / "tasks.jsonl"]))
    assert isinstance(row, Row) and agent_of(row.value) is AGENT_KINDS["sql"]
    read = run_of(row.value)
    assert (read.database, read.question, read.queries) == ("towns", "Which towns?", [step["action"]])
    row.value["reward"] = 0.5
    with pytest.raises(Dropped, match="wrong_answer"):
        run_of(row.value)


@pytest.mark.parametrize("id_", ["769", 769])
def test_a_run_of_browsecomp_plus_gets_question_and_answer_from_the_file_of_queries(
    tmp_path: Path, id_: object
) -> None:
    call = {
        "type": "tool_call",
        "tool_name": "search",
        "arguments": "{}",
        "output": '[{"docid": 4, "text": "Ann won."}]',
    }
    closing = {"type": "output_text", "tool_name": None, "arguments": None, "output": "Ann"}
    run = {"metadata": {}, "query_id": "769", "status": "completed", "result": [call, closing]}
    query = {"query_id": id_, "query": "Who won?", "answer": "Ann", "gold_docs": [{"docid": "4", "text": "Ann won."}]}
    write(tmp_path / "runs" / "run_769.json", run)
    write(tmp_path / "runs" / "queries.jsonl", query, query | {"query_id": "1", "query": "Who lost?"})
    found = discover([tmp_path / "runs"])
    (row,) = (row for row in rows(found) if isinstance(row, Row) and not is_resource(row.value))
    kind = agent_of(row.value)
    assert kind is AGENT_KINDS["search"]
    read = kind.read(row, found.resources)
    assert (read.question, read.answer, [piece.id for piece in read.evidence]) == ("Who won?", "Ann", ["4"])
