"""Runs of BIRD-Interact and LiveSQLBench, as their agents write them, give the first question and its answer."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.known_formats import turns_of
from acc_megatron.data_tools.sources.known_agents import agent_of
from acc_megatron.errors import Dropped

SQL, OTHER = "SELECT name FROM town WHERE size > 5", "SELECT size FROM town"
TASK = {"instance_id": "towns_1", "selected_database": "towns", "amb_user_query": "Which are big?", "sol_sql": [SQL]}
NEXT = "Phase 1 correct! (Reward: 0.7). Moving to Phase 2.\nFollow-up question: How big is each?"


def part(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "name": name, "id": f"{name}-1"} | fields


def event(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "adk_event", "author": "agent", "final": False, "content": {"role": role, "parts": list(parts)}}


def answered(name: str, text: str, **args: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    response = json.dumps({"result": text})
    return (
        event("model", {"type": "text", "text": f"I call {name}."}, part("function_call", name, args=args)),
        event("user", part("function_response", name, response=response)),
    )


EVENTS = [
    {"type": "user_message", "message": "Database: towns\n\nUser Query:\nWhich are big?\n\nYou have 6 turns."},
    *answered("ask_user", "Big means a size over 5.", question="What is big?"),
    *answered("submit_sql", NEXT, sql=SQL),
    {"type": "user_message", "message": "How big is each?"},
    *answered("submit_sql", "SQL failed Phase 2.", sql=OTHER),
]
TURNS = [
    {
        "phase": 1,
        "thought": "I call ask_user.",
        "action": 'ask("What is big?")',
        "observation": "Big means a size over 5.",
    },
    {"phase": 1, "thought": "I call submit_sql.", "action": f'submit("{SQL}")', "observation": "Correct."},
    {"phase": 2, "thought": "More.", "action": f"execute('{OTHER}')", "observation": "[(9,)]"},
]
RUNS: dict[str, Any] = {
    "events": {"mode": "c", "samples": [{"instance_id": "towns_1", "database": "towns", "adk_events": EVENTS}]},
    "turns": {"original_data": TASK, "interaction_history": TURNS, "phase1_completed": True},
}


def read(tmp_path: Path, run: dict[str, Any]) -> tuple[Row, Trajectory]:
    (tmp_path / "runs.json").write_text(json.dumps(run))
    (tmp_path / "tasks.jsonl").write_text(json.dumps(TASK) + "\n")
    with sqlite3.connect(tmp_path / "towns.sqlite") as database:
        database.execute("CREATE TABLE IF NOT EXISTS town AS SELECT 'Hull' AS name, 9 AS size")
    found = discover([tmp_path])
    (row,) = (row for part in found.ranges(9) for row in found.rows(part) if "sol_sql" not in row.value)  # type: ignore
    assert isinstance(row, Row)
    kind = agent_of(row.value)
    assert kind is not None and kind.name == "sql"
    return row, kind.read(row, found.resources)


@pytest.mark.parametrize("name", RUNS)
def test_the_first_question_is_read_with_what_the_user_replied(tmp_path: Path, name: str) -> None:
    row, run = read(tmp_path, RUNS[name])
    question = "Which are big?\n\nWhat is big?\nBig means a size over 5."
    assert run.question.startswith(question) and "each" not in run.question
    assert (run.answer, run.reasoning) == ("Hull", "I call ask_user.\n\nI call submit_sql.")
    assert [piece.id for piece in run.evidence] == ["towns.town"]
    assert turns_of(row.value, run)[-1].supervised


def test_a_first_question_that_failed_is_a_wrong_answer(tmp_path: Path) -> None:
    run = RUNS["events"]["samples"][0] | {"phase1_passed": False}
    with pytest.raises(Dropped, match="wrong_answer"):
        read(tmp_path, run)
