"""A scripted SQL agent: queries real SQLite databases step by step and logs trajectories in InterCode's format.

    python examples/agents/sql_agent.py --out DIR --count 12 --seed 0 --length-tokens 4096

Writes DIR/sql/trajectories.jsonl and DIR/sql/db/*.sqlite. The policy is fixed; the databases and their results are
real. `--length-tokens` is the size of all tables of a database (one token per digit and per cell, plus other characters
/ 2.5).
"""

import random
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import Options, ends_wrong, parse_options, published_folder, report, rng_for, write_jsonl
from sql_databases import THEMES, build_database, row_tokens, themes_for
from sql_questions import Question, choose_question
from sql_templates import TEMPLATES

RUN = "scripted_sql_react"
MAX_TURNS = 12
MAX_SHOWN_ROWS = 100
MAX_STEPS = 100_000_000  # limit of SQLite virtual machine instructions per query
READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)


class Environment:
    """A read-only database with the MySQL commands SHOW TABLES and DESC, which agents of InterCode use."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        names = self.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        self.tables = [name for (name,) in names]
        self.columns = {table: self._describe(table) for table in self.tables}
        self.connection.set_progress_handler(lambda: 1, MAX_STEPS)
        self.connection.set_authorizer(lambda action, *_: int(action not in READING))  # 1 is SQLITE_DENY
        self.last: list[tuple[object, ...]] = []

    def _describe(self, table: str) -> list[tuple[object, ...]]:
        info = self.connection.execute(f"PRAGMA table_info({table})").fetchall()
        return [(name, kind.lower(), "NO" if key else "YES", "PRI" if key else "", None, "")
                for _, name, kind, _, _, key in info]  # fmt: skip

    def execute(self, sql: str) -> tuple[str, bool]:
        """Run an action; return the observation and whether the action was valid."""
        words = sql.split()
        if words[:2] == ["SHOW", "TABLES"]:
            return str([(name,) for name in self.tables]), True
        if words[0] == "DESC":
            if words[1] not in self.columns:
                return f"Error executing query: no such table: {words[1]}", False
            return str(self.columns[words[1]]), True
        try:
            self.last = self.connection.execute(sql).fetchmany(MAX_SHOWN_ROWS)
        except sqlite3.Error as error:
            return f"Error executing query: {error}", False
        return str(self.last), True

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """All rows of a query, for checks outside of the trajectory."""
        return self.connection.execute(sql).fetchall()


@dataclass(slots=True)
class Log:
    """The turn history in InterCode's format."""

    environment: Environment
    thoughts: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    observations: list[str] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    valid_action: list[bool] = field(default_factory=list)

    def execute(self, thought: str, sql: str) -> None:
        """Run one query and log the turn."""
        observation, valid = self.environment.execute(sql)
        self._add(thought, f"execute[{sql}]", observation, 0, valid)

    def submit(self, thought: str, reward: float) -> None:
        """End the trajectory; the observation repeats the last result."""
        self._add(thought, "submit", str(self.environment.last), reward, True)

    def _add(self, thought: str, action: str, observation: str, reward: float, valid: bool) -> None:
        self.thoughts.append(thought)
        self.actions.append(action)
        self.observations.append(observation)
        self.rewards.append(reward)
        self.valid_action.append(valid)


def play(environment: Environment, question: Question, rng: random.Random, *, wrong: bool) -> Log:
    """Run the agent on one question; if `wrong`, it ends with the false query of the template."""
    template = question.template
    log = Log(environment)
    log.execute("I should first find out what tables are available in this database.", "SHOW TABLES")
    detour(log, template.tables, rng)
    for table in template.tables:
        log.execute(f"I should check which columns the {table} table has.", f"DESC {table}")
    found: tuple[object, ...] = ()
    for thought, query in template.steps:
        log.execute(thought, question.sql(query, found))
        found += (environment.last[0][0],) if environment.last else (None,)
    log.execute(template.thought, question.sql(template.wrong if wrong else template.answer, found))
    reward = question.reward(environment.last, environment.query(question.gold_sql))
    log.submit("The query worked and this should be the answer to the question.", reward)
    assert (reward == 1.0) != wrong, question.text
    assert len(log.actions) <= MAX_TURNS
    return log


def detour(log: Log, needed: tuple[str, ...], rng: random.Random) -> None:
    """Sometimes guess a table or column that does not exist, or read a table that is not needed."""
    kind = rng.choice(("guess table", "guess column", "look aside", "none"))
    others = [name for name in log.environment.tables if name not in needed]
    if kind == "guess table":
        log.execute(f"I will try a table called {needed[0]}s.", f"SELECT COUNT(*) FROM {needed[0]}s")
    elif kind == "guess column":
        log.execute(f"Maybe the {needed[0]} table has a title.", f"SELECT title FROM {needed[0]} LIMIT 3")
    elif kind == "look aside" and others:
        table = rng.choice(others)
        log.execute(f"The {table} table may have something to do with it.", f"SELECT * FROM {table} LIMIT 3")


def row_of(task_id: int, database: str, question: Question, log: Log) -> dict[str, Any]:
    """The InterCode row of a trajectory."""
    reward = max(log.rewards)
    return {
        "run": RUN,
        "task_id": task_id,
        "db": database,
        "question": question.text,
        "gold_sql": question.gold_sql,
        "hardness": question.template.hardness,
        "gold_result": [list(row) for row in log.environment.query(question.gold_sql)],
        "gold_error": None,
        "turn_history": {
            "thoughts": log.thoughts,
            "actions": log.actions,
            "observations": log.observations,
            "rewards": log.rewards,
            "valid_action": log.valid_action,
        },
        "summary": {"max_reward": reward, "turns_taken": len(log.actions), "turns_max": MAX_TURNS},
        "sqlite_gold_equals_recorded_observation": reward == 1.0,
    }


def write_databases(folder: Path, options: Options) -> list[tuple[str, int]]:
    """Build one database per two questions, with the themes in turn; return names and sizes in tokens."""
    folder.mkdir()
    themes = themes_for(options.length_tokens)
    made: list[tuple[str, int]] = []
    for number in range((options.count + 1) // 2):
        theme, variant = themes[number % len(themes)], number // len(themes) + 1
        tables = THEMES[theme][0](rng_for(options.seed, theme, variant), options.length_tokens)
        build_database(folder / f"{theme}_{variant}.sqlite", tables)
        made.append((f"{theme}_{variant}", sum(row_tokens(row) for table in tables for row in table.rows)))
    return made


def main() -> None:
    """Write the trajectories and databases."""
    options = parse_options("Run a scripted SQL agent on databases made of standard library tables.")
    with published_folder(options.out / "sql", options) as folder:
        databases = write_databases(folder / "db", options)
        rows: list[dict[str, Any]] = []
        sizes: list[int] = []
        asked: dict[str, list[str]] = {}
        for index in range(options.count):
            name, size = databases[index % len(databases)]
            rng = rng_for(options.seed, "sql", index)
            environment = Environment(folder / "db" / f"{name}.sqlite")
            question = choose_question(
                rng, environment.connection, TEMPLATES[name.rpartition("_")[0]], asked.setdefault(name, [])
            )
            assert question is not None, name
            asked[name].append(question.text)
            log = play(environment, question, rng, wrong=ends_wrong(index))
            rows.append(row_of(index, name, question, log))
            sizes.append(size)
            environment.connection.close()
        write_jsonl(folder / "trajectories.jsonl", rows)
    report("sql", sizes)


if __name__ == "__main__":
    main()
