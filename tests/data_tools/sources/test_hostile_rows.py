"""Whatever a row contains, an agent kind reads it or drops it, in time linear in its size."""

import copy
import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.time_limit import time_limit

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.agent_kind import AgentKind
from acc_megatron.data_tools.sources.formats.known_formats import turns_of, with_openai_messages
from acc_megatron.data_tools.sources.formats.text_calls import calls_in_text, text_without_calls
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of, describe_row
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.errors import Dropped

search, sql, swe = AGENT_KINDS["search"], AGENT_KINDS["sql"], AGENT_KINDS["swe"]

RESPONSE = "<tool_response>A Google search for 'x' found 1 results:\n\n1. [T](https://x.org)\n\ntext</tool_response>"
SEARCH = {
    "task": "agent/multiturn_search",
    "answer": [["Paris"]],
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "rules\nUser: Where?"},
        {"role": "assistant", "content": '<tool_call>{"name": "visit", "arguments": {"url": ["u"]}}</tool_call>'},
        {"role": "user", "content": RESPONSE},
        {"role": "assistant", "content": "<think>t</think><answer>Paris</answer>"},
    ],
}
SWE = {
    "environment": "main",
    "trajectory": [
        {"observation": "[File: a.py (2 lines total)]", "thought": "t", "state": '{"working_dir": "/o__t"}'},
        {"observation": "x", "thought": "", "state": {"working_dir": "/o__t"}},
    ],
    "history": [{"role": "user", "content": [{"type": "text", "text": "Title\nmore"}]}],
    "info": {"exit_status": "submitted", "resolved": True},
    "replay_config": '{"problem_statement": {"id": "o__t-1"}}',
}
INSTANCE = {
    "instance_id": "o__t-1",
    "repo": "o/t",
    "problem_statement": "Title\nmore",
    "patch": "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y\n",
    "files_at_base_commit": {"a.py": "x", "b.py": "y"},
}
SQL = {
    "db": "shop",
    "question": "q",
    "gold_sql": "SELECT a FROM t",
    "gold_result": [[1]],
    "turn_history": {
        "actions": ["SELECT a FROM t"],
        "observations": ["[(1,)]"],
        "rewards": [1.0],
        "thoughts": ["t"],
    },
}
ODD: list[Any] = [None, True, 0, -1.5, "", "x", "[]", "{", [], [[]], [None], {}, {"a": 1}, "[" * 2000, "\x00", 10**400]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from places(value[key])


def variants(value: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    draw = random.Random(7)
    for number in range(count):
        changed = copy.deepcopy(value)
        for _ in range(1 + number % 3):
            holder, key = draw.choice(list(places(changed)) or [(changed, "new")])
            if draw.random() < 0.2:
                del holder[key]
            elif isinstance(holder[key], str) and draw.random() < 0.4:
                cut = draw.randrange(len(holder[key]) + 1)
                holder[key] = holder[key][:cut] + draw.choice(["", "<think>", '"', ")", "\n"])
            else:
                holder[key] = copy.deepcopy(draw.choice(ODD))
            if not changed:
                break
        yield changed


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    found = Resources()
    connection = sqlite3.connect(tmp_path / "shop.sqlite")
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    connection.close()
    (tmp_path / "instances.json").write_text(json.dumps([INSTANCE]))
    found.add_database(tmp_path / "shop.sqlite")
    found.add_rows(tmp_path / "instances.json", keep_bad_rows=True)
    return found


def outcome(source: AgentKind, value: dict[str, Any], resources: Resources, file: str = "o__t-1.traj") -> str:
    row = with_openai_messages(Row(value=value, file=file, line=1, byte_offset=0, sha256="0" * 64))
    if not source.recognises(row.value):
        return "unrecognised"
    try:
        assert isinstance(source.read(row, resources), Trajectory)
    except Dropped as dropped:
        return dropped.reason
    return "read"


def tool_turns(*calls: tuple[str, dict[str, Any], str]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = [{"role": "user", "content": "Title\nmore"}]
    for name, arguments, output in calls:
        call = {"id": name, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        turns.append({"role": "assistant", "content": "t", "tool_calls": [call]})
        turns.append({"role": "tool", "tool_call_id": name, "content": output})
    return [*turns, {"role": "assistant", "content": "Paris"}]


HITS = '{"results": [{"url": "u", "title": "T", "content": "text"}]}'
SEARCH_CALLS = {"answer": "Paris", "messages": tool_turns(("web_search", {"query": "x"}, HITS))}
SEARCH_SHAREGPT = {
    "answer": "Paris",
    "conversations": [
        {"from": "human", "value": "Where?"},
        {"from": "function_call", "value": '{"name": "search", "arguments": {"query": "x"}}'},
        {"from": "observation", "value": HITS},
        {"from": "gpt", "value": "Paris"},
    ],
}
SEARCH_STEPS = {"question": "q", "answer": "Paris", "steps": [{"tool": "search", "input": {"q": "x"}, "output": HITS}]}
SWE_CALLS = {"instance_id": "o__t-1", "messages": tool_turns(("bash", {"command": "cd /t && cat b.py"}, "x"))}
SWE_EVENTS = {
    "instance_id": "o__t-1",
    "history": [
        {"id": 1, "source": "agent", "action": "read", "args": {"path": "/t/b.py", "thought": "t"}},
        {"id": 2, "source": "agent", "cause": 1, "observation": "read", "content": "x"},
    ],
}
SWE_SDK = {
    "instance_id": "o__t-1",
    "history": [
        {"kind": "MessageEvent", "source": "user", "llm_message": {"content": [{"type": "text", "text": "Title"}]}},
        {
            "kind": "ActionEvent",
            "thought": [{"type": "text", "text": "t"}],
            "action": {"kind": "FileEditorAction", "command": "view", "path": "/t/b.py"},
            "tool_name": "file_editor",
            "tool_call_id": "c",
            "tool_call": {"name": "file_editor", "arguments": "{}"},
            "llm_response_id": "r",
        },
        {"kind": "ObservationEvent", "tool_call_id": "c", "observation": {"content": [{"type": "text", "text": "x"}]}},
    ],
}
SQL_CALLS = {
    "db_id": "shop",
    "gold_sql": "SELECT a FROM t",
    "messages": tool_turns(("execute_sql", {"sql": "SELECT a FROM t"}, "1")),
}
CASES = [(search, SEARCH), (search, SEARCH_CALLS), (search, SEARCH_STEPS), (swe, SWE), (swe, SWE_CALLS)]
CASES += [(search, SEARCH_SHAREGPT), (swe, SWE_SDK), (swe, SWE_EVENTS), (sql, SQL), (sql, SQL_CALLS)]


FORGIVING = (SEARCH_STEPS, SEARCH_SHAREGPT, SWE_EVENTS, SWE_SDK)


@pytest.mark.parametrize("num_variants", [300, pytest.param(1500, marks=[pytest.mark.slow, pytest.mark.long])])
@pytest.mark.parametrize(("source", "value"), CASES)
def test_a_changed_row_is_read_or_dropped(
    source: AgentKind, value: dict[str, Any], num_variants: int, resources: Resources
) -> None:
    assert outcome(source, value, resources) == "read"
    outcomes = set()
    for changed in variants(value, num_variants):
        outcomes.add(outcome(source, changed, resources))
        assert agent_of(changed) in (None, search, sql, swe) and describe_row(changed)
    assert {"read", "unrecognised"} <= outcomes
    assert "malformed" in outcomes or value in FORGIVING, "in these formats a changed field is another format or no run"


def test_a_changed_instance_is_used_or_dropped(tmp_path: Path) -> None:
    outcomes = set()
    path = tmp_path / "instances.json"
    for changed in variants(INSTANCE, 300):
        path.write_text(json.dumps([changed]) if 10**400 not in changed.values() else "[]")
        found = Resources()
        found.add_rows(path, keep_bad_rows=True)
        outcomes.add(outcome(swe, SWE, found))
    assert {"read", "no_instance_row", "no_files", "no_gold_patch"} <= outcomes


N = 40_000
HANG_SECONDS = 20  # of CPU time; each case needs less than one if its cost is linear, and minutes if it is quadratic


@pytest.mark.parametrize(
    "text",
    [
        "<answer>" * N,
        "<think>" * N + "<answer>Paris</answer>",
        "<answer>" + "one hundred " + "hundred " * N + "</answer>",
        "<answer>" + "**" * N + "</answer>",
        "<answer>" + "(" * N + "</answer>",
        "<answer>" + "Paris " * N + "</answer>",
    ],
)
def test_the_cost_of_a_hostile_answer_is_linear(text: str, resources: Resources) -> None:
    changed: dict[str, Any] = copy.deepcopy(SEARCH)
    changed["messages"][4]["content"] = text
    changed["answer"] = "Paris " * (N // 2)
    with time_limit(HANG_SECONDS, of_cpu=True):
        outcome(search, changed, resources)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_response>" * N,
        f"<tool_response>A Google search for x\n1. [{'](' * N}</tool_response>",
        "<tool_response>A Google search for x\n"
        + "".join(f"{i}. [t](u)\n{i}\n" for i in range(1, N))
        + "</tool_response>",
    ],
)
def test_the_cost_of_a_hostile_response_is_linear(text: str, resources: Resources) -> None:
    changed: dict[str, Any] = copy.deepcopy(SEARCH)
    changed["messages"][3]["content"] = text
    with time_limit(HANG_SECONDS, of_cpu=True):
        outcome(search, changed, resources)


@pytest.mark.parametrize("unit", ["'\\", '"', "/*", "a AS (", "from (", ") AS (", "`", "#"])
def test_the_cost_of_hostile_sql_is_linear(unit: str, resources: Resources) -> None:
    changed: dict[str, Any] = copy.deepcopy(SQL)
    changed["turn_history"]["actions"] = ["WITH x AS (SELECT " + unit * N]
    with time_limit(HANG_SECONDS, of_cpu=True):
        outcome(sql, changed, resources)


@pytest.mark.parametrize("unit", ["[File: ", "running `cat -n` on x", "--- a\n+++ "])
def test_the_cost_of_a_hostile_log_is_linear(unit: str, resources: Resources) -> None:
    changed: dict[str, Any] = copy.deepcopy(SWE)
    changed["trajectory"][0] = {"observation": unit * N, "state": {"working_dir": "/a__" * N}}
    with time_limit(HANG_SECONDS, of_cpu=True):
        outcome(swe, changed, resources)


@pytest.mark.parametrize(
    "unit",
    ["Action: a\nAction Input: x\n", "Action: a [", "a[]", "<function=f><parameter=p>", "<tool_call>{", "```sh\n"],
)
def test_the_cost_of_hostile_calls_is_linear(unit: str) -> None:
    with time_limit(HANG_SECONDS, of_cpu=True):
        calls_in_text(unit * N)
        calls_in_text("Action: " + unit.strip() * N + " " * N)
        text_without_calls(unit * N)


@pytest.mark.parametrize("unit", ["cat a.py;", "cat " + "a/" * 50, "cat a.py ", "cd x && ", "cat '"])
def test_the_cost_of_a_hostile_command_is_linear(unit: str, resources: Resources) -> None:
    changed: dict[str, Any] = copy.deepcopy(SWE)
    changed["trajectory"][0]["action"] = unit * N
    with time_limit(HANG_SECONDS, of_cpu=True):
        outcome(swe, changed, resources)


ITEM: dict[str, Any] = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]}
UNITS: list[tuple[str, dict[str, Any]]] = [
    ("messages", ITEM),
    ("messages", {"object": "response", "output": [ITEM, {"type": "function_call", "name": "bash"}]}),
    ("messages", {"role": "user", "content": "x"}),
    ("conversations", {"from": "function_call", "value": "{"}),
    ("history", {"kind": "ActionEvent", "llm_response_id": "r", "tool_name": "bash"}),
    ("history", {"source": "user", "action": "message", "args": {"content": "x"}}),
]


@pytest.mark.parametrize(("key", "unit"), UNITS)
def test_the_cost_of_a_hostile_list_of_messages_is_linear(key: str, unit: dict[str, Any], resources: Resources) -> None:
    end: dict[str, Any] = {"type": "function_call_output", "output": "x"} if "type" in unit else {}
    value = {"instance_id": "o__t-1", key: [unit] * 10_000 + ([end] if end else [])}
    with time_limit(HANG_SECONDS, of_cpu=True):
        row = with_openai_messages(Row(value=value, file="f", line=1, byte_offset=0, sha256="0" * 64))
        assert agent_of(row.value) is swe and outcome(swe, value, resources) in ("read", "no_trajectory")
        with suppress(Dropped):
            turns_of(row.value, swe.read(row, resources))
