"""Generated SQL runs on one small database."""

import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.generated_runs.layouts import MESSAGE_LAYOUTS, Call, Layout, Run, plain_steps
from support.generated_runs.made import Made

_LAYOUTS: dict[str, Layout] = MESSAGE_LAYOUTS | {"steps": plain_steps}
_NUM_TOWERS = 40
FAULTS = ("", "", "", "", "other rows", "failed", "no database", "wrong query", "hint")
_SPELLINGS: dict[str, Callable[[int], str]] = {
    "tuples": lambda number: f"[({number},)]", "json": lambda number: f"[[{number}]]", "text": str,
    "objects": lambda number: json.dumps([{"count(*)": number}]),
    "markdown": lambda number: f"| count(*) |\n| --- |\n| {number} |",
    "psql": lambda number: f" count \n-------\n {number:5}\n(1 row)",
}  # fmt: skip


def write_database(folder: Path) -> Path:
    path = folder / "towers.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE Tower (id INTEGER, height INTEGER)")
    connection.execute("CREATE TABLE Unused (a)")
    connection.executemany("INSERT INTO Tower VALUES (?, ?)", [(i, 10 * i) for i in range(_NUM_TOWERS)])
    connection.commit()
    connection.close()
    return path


def sql_row(number: int, chosen: random.Random) -> Made:
    height, fault, spelling = chosen.randrange(300), chosen.choice(FAULTS), chosen.choice(list(_SPELLINGS))
    layout = chosen.choice(["intercode", "fences", *_LAYOUTS])
    count = sum(10 * i > height for i in range(_NUM_TOWERS))
    gold = f"SELECT count(*) FROM Tower WHERE height > {height}"
    query = f"SELECT count(*) FROM Tower WHERE height > {height + 100}" if fault == "wrong query" else gold
    question = f"How many towers are higher than {height}? ({number})"
    output = _SPELLINGS[spelling](count + 1 if fault == "other rows" else count)
    thought = f"I count towers over {height}."
    call = Call(thought=thought, tool="execute_sql", arguments={"sql": query}, output=output)
    if layout == "intercode":
        output = f"[({count + 1 if fault == 'other rows' else count},)]"
        history = {"actions": [query], "observations": [output], "thoughts": [thought]}
        is_bad = fault in ("failed", "wrong query")
        row: dict[str, Any] = {"turn_history": history | {"rewards": [0.0 if is_bad else 1.0]}, "question": question}
    elif layout == "fences":
        turns = [question, f"{thought}\n```sql\n{query}\n```", output, f"There are {count}."]
        row = {"messages": [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]}
    else:
        row = _LAYOUTS[layout](Run(prompt=question, calls=(call,), final=f"There are {count}."))
    row["db"] = "moons" if fault == "no database" else "towers"
    row["gold_sql"] = gold
    if fault == "failed" and layout != "intercode":
        row |= chosen.choice([{"success": False}, {"reward": 0}, {"passed": "false"}])
    if fault == "hint":
        row["evidence"] = "higher refers to the height in metres"
        question += "\n\nHint: higher refers to the height in metres"
    reasons = {
        "other rows": "gold_mismatch", "failed": "wrong_answer", "no database": "no_database",
        "wrong query": "wrong_answer",
    }  # fmt: skip
    return Made(
        name=f"sql {layout} {spelling} {fault}",
        row=row,
        question=question,
        evidence={"towers.Tower": "| 39 | 390 |"},
        reasoning=thought,
        answer=str(count),
        reason=reasons.get(fault, ""),
    )
