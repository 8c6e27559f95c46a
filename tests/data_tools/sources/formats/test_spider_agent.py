"""A log of Spider 2's agent is a SQL run whose outputs are in the steps after the actions."""

from typing import Any

from acc_megatron.data_tools.sources.formats.known_formats import transcript_of
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of, describe_row

QUERY = "SELECT count(*) FROM t"
LOG: dict[str, Any] = {
    "Task": "How many?",
    "system_message": "s",
    "trajectory": [
        {
            "observation": "You are in the folder now.",
            "thought": "I count.",
            "action": f'LOCAL_DB_SQL(file_path="shop.sqlite", command="{QUERY}")',
            "code": QUERY,
            "response": "r",
        },
        {"observation": "[(2,)]", "thought": "Two.", "action": 'Terminate(output="2")', "code": None, "response": "r"},
    ],
}


def test_the_output_of_an_action_is_the_next_observation() -> None:
    found = transcript_of(LOG)
    assert (found.prompt, found.final) == ("How many?", "2")
    first, last = found.steps
    assert (first.thought, first.tool, first.arguments, first.output) == (
        "I count.",
        "LOCAL_DB_SQL",
        {"sql": QUERY},
        "[(2,)]",
    )
    assert (last.tool, last.output) == ("Terminate", "")


def test_a_log_without_a_database_is_described_as_a_sql_run_and_never_taken_for_a_swe_run() -> None:
    assert agent_of(LOG) is None
    assert "nearest: a SQL run (Spider 2 agent log); add 'question', 'db'" in describe_row(LOG)
    assert agent_of(LOG | {"db": "shop"}) is AGENT_KINDS["sql"]
