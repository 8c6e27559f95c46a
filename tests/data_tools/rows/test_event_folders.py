"""A folder with a file for each event is one run; a broken event costs that event only."""

import json
from pathlib import Path

import pytest

from acc_megatron.common.json_rows import BadRow, Row
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.rows.event_folders import event_files
from acc_megatron.data_tools.sources.known_agents import agent_of

NUM_EVENTS = 12
INSTANCE = {
    "instance_id": "own__repo-1", "repo": "own/repo", "base_commit": "0", "problem_statement": "It fails.",
    "patch": "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y", "files_at_base_commit": {"a.py": "x", "b.py": "z"},
}  # fmt: skip


def write_events(folder: Path, name: str) -> list[Path]:
    (folder / "events").mkdir(parents=True)
    paths = []
    for number in range(NUM_EVENTS):
        event: dict[str, object] = {"id": number, "source": "agent"}
        if number % 2:
            event |= {"observation": "run", "content": "z", "cause": number - 1}
        else:
            event |= {"action": "run", "args": {"command": "cat b.py", "thought": f"T{number}."}}
        paths.append(folder / "events" / name.format(number))
        paths[-1].write_text(json.dumps(event))
    return paths


@pytest.mark.parametrize("name", ["{}.json", "event-{:05}-0a1b2c3d-4e5f.json"])
def test_the_events_of_a_folder_are_one_run_in_the_order_of_their_numbers(tmp_path: Path, name: str) -> None:
    runs = tmp_path / "runs"
    write_events(runs / "own__repo-1_run", name)
    (tmp_path / "instances.json").write_text(json.dumps([INSTANCE]))
    found = discover([runs], [tmp_path / "instances.json"])
    rows = [row for part in found.ranges(2) for row in found.rows(part)]
    assert len(rows) == 1 and isinstance(rows[0], Row) and not found.sidecars
    assert [event["id"] for event in rows[0].value["history"]] == list(range(NUM_EVENTS))
    kind = agent_of(rows[0].value)
    assert kind is not None and kind.name == "swe"
    trajectory = kind.read(rows[0], found.resources)
    assert [piece.id for piece in trajectory.evidence + trajectory.distractors] == ["a.py", "b.py"]
    assert trajectory.reasoning == "T0.\n\nT2.\n\nT4.\n\nT6.\n\nT8.\n\nT10."


def test_a_broken_event_is_a_bad_row_of_its_own_file(tmp_path: Path) -> None:
    paths = write_events(tmp_path / "run", "{}.json")
    paths[4].write_text('{"id": 4, ')
    found = discover([tmp_path])
    rows = [row for part in found.ranges(2) for row in found.rows(part)]
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert [(Path(row.file).name, row.reason) for row in bad] == [("4.json", "broken_json")] and len(rows) == 2


def test_numbered_files_elsewhere_are_documents(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    for path in (tmp_path / "0.json", tmp_path / "events" / "7.json"):
        path.write_text("{}")
        assert event_files(path) == []
