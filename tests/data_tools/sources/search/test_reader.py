"""In a search run visited pages are evidence, and no text in a row can fake a visit or stop the run."""

import copy
import json
from collections import Counter
from typing import Any

import pytest
from support.commands import SHARED_DATA

from acc_megatron.common.json_rows import Row, read_jsonl
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.known_formats import with_openai_messages
from acc_megatron.data_tools.sources.known_agents import agent_of
from acc_megatron.data_tools.sources.page_url import page_key
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.search.agent import SearchAgent
from acc_megatron.errors import Dropped

DATA = SHARED_DATA / "search" / "webdancer.jsonl"
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
    assert SearchAgent().recognises(row.value)
    return SearchAgent().read(row, Resources())


def reason(row: Row) -> str:
    with pytest.raises(Dropped) as dropped:
        read(row)
    return dropped.value.reason


def test_without_a_visit_the_hits_are_the_evidence_and_the_notes_record_it() -> None:
    trajectory = read(run(call("search", query=["derby"]), HITS, LAST))
    assert trajectory.notes["evidence_rule"] == "hits"
    assert [piece.id for piece in trajectory.evidence] == ["https://x.org/Santa_(horse)", "https://y.org/b"]
    assert trajectory.distractors == ()


def test_visited_pages_are_evidence_and_other_hits_are_distractors() -> None:
    visit = call("visit", url=["https://y.org/b", "https://never.org"], goal="check")
    trajectory = read(run(call("search", query=["derby"]), HITS, visit, VISIT, LAST))
    assert trajectory.notes["evidence_rule"] == "visited_pages"
    assert [(piece.id, piece.kind) for piece in trajectory.evidence] == [("https://y.org/b", "evidence")]
    assert [(piece.id, piece.kind) for piece in trajectory.distractors] == [
        ("https://x.org/Santa_(horse)", "distractor")
    ]
    assert "Snippet two." in trajectory.evidence[0].text and "Full text." in trajectory.evidence[0].text


def test_titles_with_brackets_and_urls_with_parentheses_stay_complete_and_all_snippets_are_kept() -> None:
    first = read(run(call("search", query=["derby"]), HITS, LAST)).evidence[0]
    assert first.title == "[PDF] The [best](x) race"
    assert "Snippet one." in first.text and "Another snippet." in first.text
    assert "[Not a hit](https://fake.org)" in first.text  # a link with another number belongs to the snippet


def test_question_truth_and_reasoning_are_read_from_their_fields() -> None:
    trajectory = read(run(call("search", query=["derby"]), HITS, LAST))
    assert trajectory.question == "Who won?"
    assert (trajectory.answer, trajectory.ground_truth) == ("Santa Claus", "Santa Claus")
    assert (trajectory.reasoning, trajectory.reasoning_source) == ("The pages agree.", "agent")
    assert (trajectory.provenance.file, trajectory.provenance.line) == ("runs.jsonl", 3)


def test_a_page_that_only_a_tool_response_calls_visited_is_not_evidence() -> None:
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
        (run(call("search"), HITS, LAST, messages=[{"role": "user", "content": 5}] * 3), "malformed"),
    ],
)
def test_a_run_that_cannot_be_used_is_dropped_with_a_reason(row: Row, expected: str) -> None:
    assert reason(row) == expected


def test_a_prompt_without_a_question_is_dropped() -> None:
    manual, question = run(call("search"), HITS, LAST), run(call("search"), HITS, LAST)
    manual.value["messages"][1]["content"] = "a manual of <tool_call> without a mark"
    assert reason(manual) == "no_question"
    question.value["messages"][1]["content"] = "Which horse won?"
    assert read(question).question == "Which horse won?", "a prompt that does not explain tags is the question"


@pytest.mark.parametrize("bad", ["{", '{"name": "visit"}', '{"name": "visit", "arguments": {"url": 3}}', "[1]"])
def test_a_broken_tool_call_visits_nothing(bad: str) -> None:
    trajectory = read(run(f"<tool_call>{bad}</tool_call>", HITS, LAST))
    assert trajectory.notes["evidence_rule"] == "hits"


def test_rows_of_other_shapes_are_not_recognised() -> None:
    for value in ({"messages": 1}, {"messages": [1]}, {"messages": [{"role": "user", "content": "hi"}] * 4}, {}):
        assert not SearchAgent().recognises(value)


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
    assert rules == {"hits": 97, "visited_pages": 11, "wrong_answer": 12}


def generic(steps: list[dict[str, Any]], **changes: Any) -> Row:
    value = {"question": "Who won?", "steps": steps, "answer": "Santa Claus"} | changes
    return Row(value=copy.deepcopy(value), file="runs.jsonl", line=1, byte_offset=0, sha256="cd" * 32)


JSON_HITS = json.dumps(
    [{"url": "https://a.org", "title": "A", "snippet": "One."}, {"link": "https://b.org", "text": "Two."}]
)
STEPS = [
    {"tool": "search", "input": {"query": "derby"}, "output": JSON_HITS},
    {"thought": "Open it.", "tool": "visit", "input": {"url": "https://b.org"}, "output": "Full page."},
]


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        ("https://b.org/", True),
        ("http://www.b.org#part", True),
        ("https://B.org/#:~:text=x", True),
        ("https://b.org/#/other", False),
        ("https://b.org/?page=2", False),
    ],
)
def test_a_hit_and_a_visit_with_two_spellings_of_one_url_are_one_page(asked: str, same: bool) -> None:
    trajectory = read(generic([STEPS[0], STEPS[1] | {"input": {"url": asked}}]))
    assert [piece.id for piece in trajectory.evidence] == (["https://b.org"] if same else [asked])
    assert [piece.id for piece in trajectory.distractors] == ["https://a.org"] + ([] if same else ["https://b.org"])


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://en.wikipedia.org/wiki/Santa_Claus_%28horse%29", "en.wikipedia.org/wiki/Santa_Claus_(horse)"),
        ("https://youtu.be/AbC", "youtu.be/AbC"),
        ("HTTP://www.A.org/B/", "a.org/B"),
        ("https://a.org/#!/b", "a.org#!/b"),
        ("search: a/b#c/", "search: a/b#c/"),
        ("file:///a/#b", "file:///a/#b"),
        ("", ""),
    ],
)
def test_all_spellings_of_a_url_have_one_key(url: str, key: str) -> None:
    assert page_key(url) == key


def test_failed_visits_are_not_evidence_and_do_not_change_other_pages() -> None:
    told = "The useful information in {} for user goal g as follows: \n\nEvidence in page: \n{}\n\nSummary: \n{}\n\n"
    lost = told.format(
        "https://x.org/Santa_(horse)",
        "The provided webpage content could not be accessed. Please check the URL or file format.",
        "The webpage content could not be processed, and therefore, no information is available.",
    )
    good = told.format("https://y.org/b", "Line one.\n=======\nLine two.", "Short.")
    urls = ["https://x.org/Santa_(horse)", "https://y.org/b", "https://z.org/c"]
    joined = "\n=======\n".join([lost, good, "Error fetching https://z.org/c: timed out"])
    visit = call("visit", url=urls, goal="g")
    response = f"<tool_response>\n{joined}\n</tool_response>"
    trajectory = read(run(call("search", query=["derby"]), HITS, visit, response, LAST))
    assert [piece.id for piece in trajectory.evidence] == ["https://y.org/b"]
    assert trajectory.evidence[0].text.endswith("Line one.\n=======\nLine two.\n\nSummary: \nShort.")
    assert [piece.id for piece in trajectory.distractors] == ["https://x.org/Santa_(horse)"]
    assert "could not be accessed" not in trajectory.distractors[0].text
    only_lost = read(run(call("search", query=["derby"]), HITS, visit, f"<tool_response>{lost}</tool_response>", LAST))
    assert only_lost.notes["evidence_rule"] == "hits"


def test_the_truth_can_be_a_number_or_have_aliases() -> None:
    assert read(generic(STEPS, answer=42)).ground_truth == "42"
    assert reason(generic(STEPS, answer=42, prediction="It was 41.")) == "wrong_answer"
    assert reason(generic(STEPS, answer=True)) == "no_ground_truth"
    golden = {"answer": None, "golden_answers": ["Santa", "St. Nicholas"]}
    trajectory = read(generic(STEPS, prediction="It was St. Nicholas.", **golden))
    assert (trajectory.answer, trajectory.notes["aliases"]) == ("Santa", ["St. Nicholas"])
    assert read(generic(STEPS, prediction="It was Noel.", answer_aliases=["Noel"])).answer == "Santa Claus"
    assert reason(generic(STEPS, prediction="Red Rum", **golden)) == "wrong_answer"


def test_generic_steps_have_visited_pages_and_other_hits() -> None:
    trajectory = read(generic(STEPS))
    assert [(piece.id, piece.text) for piece in trajectory.evidence] == [
        ("https://b.org", "https://b.org\n\nTwo.\n\nFull page.")
    ]
    assert [(piece.id, piece.title) for piece in trajectory.distractors] == [("https://a.org", "A")]
    assert (trajectory.question, trajectory.answer, trajectory.reasoning) == ("Who won?", "Santa Claus", "Open it.")
    assert trajectory.notes["agent_answer"] is None, "the row has no answer of the agent"


def test_a_generic_run_is_checked_against_its_truth_or_its_verdict() -> None:
    assert read(generic(STEPS, answer="It was Santa Claus.", ground_truth="Santa Claus")).answer == "Santa Claus"
    assert reason(generic(STEPS, answer="Red Rum", ground_truth="Santa Claus")) == "wrong_answer"
    assert reason(generic(STEPS, prediction="Red Rum")) == "wrong_answer"
    assert reason(generic(STEPS, success=False)) == "wrong_answer"
    assert reason(generic(STEPS, answer=None)) == "no_ground_truth"


def tool_run(final: str, *outputs: tuple[str, dict[str, Any], str], **changes: Any) -> Row:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Who won?"}]
    for i, (name, arguments, output) in enumerate(outputs):
        function = {"name": name, "arguments": json.dumps(arguments)}
        messages.append({"role": "assistant", "content": None, "tool_calls": [{"id": str(i), "function": function}]})
        messages.append({"role": "tool", "tool_call_id": str(i), "content": output})
    value = {"messages": [*messages, {"role": "assistant", "content": final}], "answer": "Santa Claus"} | changes
    return Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="ef" * 32)


def test_openai_tool_calls_are_read_by_the_names_of_their_tools() -> None:
    page = json.dumps({"title": "B", "content": "Full page."})
    results = json.dumps({"results": json.loads(JSON_HITS)})
    row = tool_run(
        "It was Santa Claus.",
        ("web_search", {"query": "x"}, results),
        ("fetch_url", {"url": "https://b.org"}, page),
        ("fetch_url", {"url": "https://c.org"}, "Error: 404"),
        ("calculator", {"x": 1}, "2"),
    )
    trajectory = read(row)
    assert [(piece.id, piece.title) for piece in trajectory.evidence] == [("https://b.org", "B")]
    assert [piece.id for piece in trajectory.distractors] == ["https://a.org"]
    assert trajectory.notes["unread_responses"] == 2 and trajectory.question == "Who won?"
    assert reason(tool_run("Red Rum.", ("web_search", {"query": "x"}, results))) == "wrong_answer"
    assert reason(tool_run("", ("web_search", {"query": "x"}, results))) == "no_answer"


def test_a_react_passage_is_a_page_named_after_its_query() -> None:
    passage = "The Derby of 1964 was won by the horse Santa Claus, ridden by Scobie Breasley, at Epsom."
    messages = [
        {"role": "user", "content": "Who won?"},
        {"role": "assistant", "content": "Thought: I search.\nAction: Search[derby 1964]"},
        {"role": "user", "content": f"Observation: {passage}"},
        {"role": "assistant", "content": "Thought: I know.\nAction: Finish[Santa Claus]"},
    ]
    row = generic([], messages=messages)
    del row.value["steps"]
    trajectory = read(row)
    assert [piece.text for piece in trajectory.evidence] == [f"Search: derby 1964\n\n{passage}"]
    assert trajectory.reasoning == "I search.\n\nI know."


def test_a_short_observation_with_the_answer_is_evidence() -> None:
    long = "The lighthouse was completed by an engineer whose name is kept elsewhere, and guides ships ever since."
    row = tool_run("Santa Claus", ("search", {"query": "derby"}, long), ("search", {"query": "horse"}, "Santa Claus"))
    assert [piece.text for piece in read(row).evidence] == [f"search: derby\n\n{long}", "search: horse\n\nSanta Claus"]
    assert len(read(tool_run("Santa Claus", ("search", {"query": "horse"}, "Santa Claus, a horse"))).evidence) == 1


def with_earlier(*messages: tuple[str, str], **changes: Any) -> Row:
    """A run with messages before its own request."""
    row = tool_run("It was Santa Claus.", ("search", {"query": "x"}, "Santa Claus won the derby."), **changes)
    earlier = [{"role": role, "content": content} for role, content in messages]
    row.value["messages"] = earlier + row.value["messages"]
    return row


def test_the_question_is_the_last_request_before_the_calls() -> None:
    turns = ("Capital of Zed?", "Zedville.", "Of Yod?", "Yodo.")
    demonstration = tuple(zip(("user", "assistant") * 2, turns, strict=True))
    trajectory = read(with_earlier(("system", "s"), *demonstration))
    assert trajectory.question == "Who won?" and len(trajectory.evidence) == 1
    assert read(with_earlier(*demonstration, question="Which horse won?")).question == "Which horse won?"


def test_a_chat_with_calls_for_two_questions_is_dropped_unless_the_row_names_its_question() -> None:
    first = tool_run("Ann.", ("search", {"query": "y"}, "Ann wrote it.")).value["messages"]
    second = tool_run("It was Santa Claus.", ("search", {"query": "x"}, "Santa Claus won the derby."))
    second.value["messages"] = [first[0] | {"content": "Who wrote it?"}, *first[1:], *second.value["messages"]]
    assert reason(second) == "several_questions"
    second.value["question"] = "Who won?"
    trajectory = read(second)
    assert [piece.id for piece in trajectory.evidence] == ["search: x"], "the pages of another question are no evidence"


def test_a_react_demonstration_with_calls_is_not_taken_for_the_question() -> None:
    turns = ["Who wrote it?", "Thought: t\nAction: Search[y]", "Observation: Ann wrote it.", "Action: Finish[Ann]"]
    turns += ["Who won?", "Action: Search[x]", "Observation: Santa Claus won.", "Action: Finish[Santa Claus]"]
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    row = generic([], messages=messages)
    del row.value["steps"], row.value["question"]
    assert reason(row) == "several_questions"


@pytest.mark.parametrize(
    "reminder", ["Please continue.", "Your previous action is invalid. Use a tool.", "<information>Santa</information>"]
)
def test_a_reminder_of_the_framework_is_no_question(reminder: str) -> None:
    row = tool_run("It was Santa Claus.", ("search", {"query": "x"}, "Santa Claus won the derby."))
    row.value["messages"][1:1] = [{"role": "assistant", "content": "I think."}, {"role": "user", "content": reminder}]
    assert read(row).question == "Who won?"


def test_reasoning_under_its_own_key_of_the_last_message_precedes_the_answer() -> None:
    row = run(call("visit", url="https://y.org/b"), VISIT, "<answer>Santa Claus</answer>")
    first, _, last = row.value["messages"][2:]
    first["content"] = first["content"].partition("\n")[2]  # no other message has reasoning
    last["reasoning_content"] = "The page names the winner."
    trajectory = SearchAgent().read(row, Resources())
    assert (trajectory.reasoning, trajectory.answer) == ("The page names the winner.", "Santa Claus")


def test_a_search_run_may_use_a_shell() -> None:
    names = ("web_search", "bash")
    calls = [{"role": "assistant", "content": f"I use {n}.", "tool_calls": [{"function": {"name": n}}]} for n in names]
    turns = [turn for call in calls for turn in (call, {"role": "tool", "content": "Ann won."})]
    value = {"question": "Who?", "answer": "Ann", "messages": [*turns, {"role": "assistant", "content": "Ann"}]}
    row = Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="cd" * 32)
    kind = agent_of(row.value)
    assert kind is not None and kind.name == "search"
    assert [piece.text for piece in read(row).evidence] == ["web_search: \n\nAnn won."]


def test_a_log_of_miroflow_has_its_calls_in_tags_and_its_messages_in_an_object() -> None:
    call = (
        "<think>I look.</think>\n<use_mcp_tool>\n<server_name>browser</server_name>\n"
        '<tool_name>scrape_website</tool_name>\n<arguments>\n{"url": "a.org"}\n</arguments>\n</use_mcp_tool>'
    )
    turns = [("developer", "You search."), ("user", "Who won? Wrap it in \\boxed{}."), ("assistant", call)]
    turns += [("user", "Ann won."), ("assistant", "It is \\boxed{Ann}.")]
    history = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    value = {
        "main_agent_message_history": {"system_prompt": "You search.", "message_history": history},
        "input": {"task_description": "Who won?"},
        "ground_truth": "Ann",
        "final_boxed_answer": "Ann",
        "final_judge_result": "CORRECT",
    }
    row = with_openai_messages(Row(value=value, file="run.json", line=1, byte_offset=0, sha256="cd" * 32))
    kind = agent_of(row.value)
    assert kind is not None and kind.name == "search"
    run = read(row)
    assert (run.question, run.answer, run.reasoning, run.is_judged) == ("Who won?", "Ann", "I look.", True)
    assert [piece.text for piece in run.evidence] == ["a.org\n\nAnn won."]
