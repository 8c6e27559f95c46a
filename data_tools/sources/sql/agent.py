"""SQL agents: complete tables that their queries or the gold query named are evidence."""

from collections.abc import Iterator
from typing import Any

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.schema import Piece, Trajectory, Triple
from acc_megatron.data_tools.sources.agent_kind import AgentKind
from acc_megatron.data_tools.sources.container_test import ContainerTest
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.sql import reader
from acc_megatron.data_tools.sources.sql.answer_rows import check_rows
from acc_megatron.data_tools.sources.sql.runs import is_sql_run
from acc_megatron.data_tools.sources.sql.sqlite_readonly import QueryError, open_readonly
from acc_megatron.data_tools.sources.sql.table_text import ANSWER_FORM, table_text


class SqlAgent(AgentKind):
    """Tables of all databases can be distractors of any run."""

    name = "sql"
    summary = "complete tables that successful queries or the gold query named are evidence"
    request = ANSWER_FORM

    def recognises(self, value: dict[str, Any]) -> bool:
        """See sql/runs.py."""
        return is_sql_run(value)

    def read(self, row: Row, resources: Resources) -> Trajectory:
        """See sql/reader.py."""
        return reader.read(row, resources)

    def check_answer(self, triple: Triple, answer: str, resources: Resources, test: ContainerTest | None) -> None:
        """The answer must state the result of the gold query (sql/answer_rows.py)."""
        check_rows(triple, answer, resources)

    def shared_pieces(self, resources: Resources) -> Iterator[Piece]:
        """Every table with rows of every database; a database is left from its first unreadable table on."""
        for name, path in sorted(resources.databases.items()):
            try:
                with open_readonly(path) as database:
                    for table in sorted(database.table_names().values()):
                        contents = database.table(table)
                        if contents.rows:
                            text = table_text(contents, resources.table_format)
                            yield Piece(id=f"{name}.{table}", title=f"Table {table}", text=text, kind="distractor")
            except QueryError:
                continue
