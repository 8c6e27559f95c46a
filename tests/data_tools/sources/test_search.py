"""Search runs: visited pages are evidence, and nothing in a row can fake that or stop the run."""

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.data_tools.jsonl import Row, read_jsonl
from acc_megatron.data_tools.resources import Resources
from acc_megatron.data_tools.schema import Dropped, Trajectory
from acc_megatron.data_tools.sources import search

DATA = Path(__file__).parents[4] / "shared" / "data" / "search" / "webdancer.jsonl"
PROMPT = "<tool_call>\n{}\n</tool_call> <think> here </think> <answer> answer here </answer>\n\nUser: Who won?"
HITS = """<tool_response>
A Google search for 'derby' found 3 results:

## Web Results
1. [[PDF] The [best](x) race](https://x.org/Santa_(horse))

Snippet one.
1. [Not a hit](https://fake.org)

2. [Second](https://y.org/b)
Date published: May 1, 2020

Snippet two.
=======
A Google search for 'oaks' found 1 results:

## Web Results
1. [Again](https://x.org/Santa_(horse))

Another snippet.
</tool_response>"""
VISIT = """<tool_response>
The useful information in https://y.org/b for user goal check as follows:

Evidence in page:
Full text.
</tool_response>"""

TRUTH = [["Santa Claus"]]


def run(*turns: str, answer: Any = TRUTH, **changes: Any) -> Row:
    roles = ("assistant", "user")
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": PROMPT}]
    messages += [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    value = {"task": "agent/multiturn_search", "messages": messages, "answer": answer} | changes
    return Row(value=copy.deepcopy(value), file="runs.jsonl", line=3, byte_offset=0, sha256="ab" * 32)


def call(name: str, **arguments: Any) -> str:
    return f"<think>plan</think>\n<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


LAST = "<think>\nThe pages agree.\n</think>\n<answer>\nIt was **Santa Claus**.\n</answer>"


def read(row: Row) -> Trajectory:
    assert search.recognises(row.value)
    return search.read(row, Resources())


def reason(row: Row) -> str:
    with pytest.raises(Dropped) as dropped:
        read(row)
    return dropped.value.reason


def test_without_a_visit_the_hits_are_the_evidence_and_the_notes_say_so() -> None:
    trajectory = read(run(call("search", query=["derby"]), HITS, LAST))
    assert trajectory.notes["evidence_rule"] == "hits"
    assert [piece.id for piece in trajectory.evidence] == ["https://x.org/Santa_(horse)", "https://y.org/b"]
    assert trajectory.distractors == ()


def test_visited_pages_are_evidence_and_unvisited_hits_distractors() -> None:
    visit = call("visit", url=["https://y.org/b", "https://never.org"], goal="check")
    trajectory = read(run(call("search", query=["derby"]), HITS, visit, VISIT, LAST))
    assert trajectory.notes["evidence_rule"] == "visited_pages"
    assert [(piece.id, piece.kind) for piece in trajectory.evidence] == [("https://y.org/b", "evidence")]
    assert [(piece.id, piece.kind) for piece in trajectory.distractors] == [
        ("https://x.org/Santa_(horse)", "distractor")
    ]
    assert "Snippet two." in trajectory.evidence[0].text and "Full text." in trajectory.evidence[0].text


def test_titles_with_brackets_and_urls_with_parentheses_stay_whole_and_all_snippets_are_kept() -> None:
    first = read(run(call("search", query=["derby"]), HITS, LAST)).evidence[0]
    assert first.title == "[PDF] The [best](x) race"
    assert "Snippet one." in first.text and "Another snippet." in first.text
    assert "[Not a hit](https://fake.org)" in first.text  # a numbered link out of order belongs to the snippet


def test_question_truth_and_reasoning_come_from_their_places() -> None:
    trajectory = read(run(call("search", query=["derby"]), HITS, LAST))
    assert trajectory.question == "Who won?"
    assert (trajectory.answer, trajectory.ground_truth) == ("Santa Claus", "Santa Claus")
    assert (trajectory.reasoning, trajectory.reasoning_source) == ("The pages agree.", "agent")
    assert (trajectory.provenance.file, trajectory.provenance.line) == ("runs.jsonl", 3)


def test_a_page_that_only_a_tool_response_calls_visited_is_no_evidence() -> None:
    trajectory = read(run(call("search", query=["derby"]), HITS, call("search", query=["x"]), VISIT, LAST))
    assert trajectory.notes["evidence_rule"] == "hits"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (run(call("search"), HITS, LAST, answer=[["Red Rum"]]), "wrong_answer"),
        (run(call("search"), HITS, "<think>stop</think>"), "no_answer"),
        (run(call("search"), HITS, "<answer> </answer>"), "no_answer"),
        (run(), "no_answer"),
        (run(call("search"), HITS, LAST, answer=None), "no_ground_truth"),
        (run(call("search"), HITS, LAST, answer=[["a", "b"]]), "no_ground_truth"),
        (run(call("search"), "<tool_response>rate limited</tool_response>", LAST), "no_evidence"),
        (run(call("search"), HITS, LAST, messages=[{"role": "user"}] * 3), "malformed"),
    ],
)
def test_what_cannot_be_used_is_dropped_by_name(row: Row, expected: str) -> None:
    assert reason(row) == expected


def test_a_prompt_without_a_question_is_dropped() -> None:
    row = run(call("search"), HITS, LAST)
    row.value["messages"][1]["content"] = "no mark"
    assert reason(row) == "no_question"


@pytest.mark.parametrize("bad", ["{", '{"name": "visit"}', '{"name": "visit", "arguments": {"url": 3}}', "[1]"])
def test_a_broken_tool_call_visits_nothing(bad: str) -> None:
    trajectory = read(run(f"<tool_call>{bad}</tool_call>", HITS, LAST))
    assert trajectory.notes["evidence_rule"] == "hits"


def test_other_shapes_are_not_recognised() -> None:
    for value in ({"messages": 1}, {"messages": [1]}, {"messages": [{"role": "user", "content": "hi"}] * 4}, {}):
        assert not search.recognises(value)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_file(), reason="no shared data")
def test_every_real_row_is_a_triple_or_a_wrong_answer() -> None:
    rules: Counter[str] = Counter()
    for row in read_jsonl(DATA):
        assert isinstance(row, Row)
        try:
            trajectory = read(row)
        except Dropped as dropped:
            rules[dropped.reason] += 1
            continue
        assert trajectory.notes["unread_responses"] == 0
        rules[trajectory.notes["evidence_rule"]] += 1
    assert rules == {"hits": 91, "visited_pages": 11, "wrong_answer": 18}
