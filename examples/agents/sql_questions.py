"""Questions over the databases: templates filled with values from the data, with verified answers."""

import random
import sqlite3
from collections import Counter
from dataclasses import dataclass

from sql_templates import Template

Rows = list[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Question:
    """A template with chosen parameters."""

    template: Template
    parameters: tuple[object, ...]

    @property
    def text(self) -> str:
        """The text of the question."""
        return self.template.text.format(**dict(zip("abc", self.parameters, strict=False)))

    @property
    def gold_sql(self) -> str:
        """The query that defines the true answer."""
        return self.sql(self.template.gold)

    def sql(self, text: str, found: tuple[object, ...] = ()) -> str:
        """Fill a query with the parameters and with the results of earlier steps."""
        values = {name: quote(value) for name, value in zip("abc", self.parameters, strict=False)}
        values |= {f"s{number}": quote(value) for number, value in enumerate(found, 1)}
        return text.format(**values)

    def reward(self, result: Rows, gold: Rows) -> float:
        """1.0 for an equal result (in order if the gold query orders), otherwise the share of common rows, below 1."""
        if result == gold if "ORDER BY" in self.template.gold else Counter(result) == Counter(gold):
            return 1.0
        common, union = Counter(result) & Counter(gold), Counter(result) | Counter(gold)
        return min(0.5, common.total() / union.total())


def quote(value: object) -> str:
    """A value as an SQL literal."""
    if isinstance(value, int | float):
        return str(value)
    return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"


def choose_question(
    rng: random.Random, connection: sqlite3.Connection, templates: tuple[Template, ...], asked: list[str]
) -> Question | None:
    """A new question that the correct query answers and the wrong query does not, or None."""
    for template in rng.sample(templates, len(templates)):
        rows = connection.execute(template.pick).fetchall()
        for row in rng.sample(rows, min(len(rows), 20)):
            question = Question(template, row)
            if question.text not in asked and is_valid(connection, question):
                return question
    return None


def is_valid(connection: sqlite3.Connection, question: Question) -> bool:
    """Whether there is an answer, the queries of the agent find it, and the wrong query does not."""
    found: tuple[object, ...] = ()
    for _, query in question.template.steps:
        first = connection.execute(question.sql(query, found)).fetchone()
        found += (first[0] if first else None,)
    gold, right, wrong = (
        connection.execute(question.sql(sql, found)).fetchall()
        for sql in (question.template.gold, question.template.answer, question.template.wrong)
    )
    return bool(gold) and question.reward(right, gold) == 1.0 and question.reward(wrong, gold) < 1.0
