"""A search that an agent calls in Python code is a search, in every way in which code agents write their code."""

from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.known_formats import with_openai_messages
from acc_megatron.data_tools.sources.formats.python_calls import called_in_code
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of
from acc_megatron.data_tools.sources.resources import Resources

HITS = "## Search Results\n\n{}[Tower](https://a.org/tower)\nAnn Lee built it.\n\n{}[Mill](https://b.org)\nIt is old."


def read(value: dict[str, Any]) -> Trajectory:
    row = with_openai_messages(Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32))
    assert agent_of(row.value) is AGENT_KINDS["search"]
    return AGENT_KINDS["search"].read(row, Resources())


def step(number: int, code: str, printed: str, output: str = "None") -> dict[str, Any]:
    call = {"id": str(number), "type": "function", "function": {"name": "python_interpreter", "arguments": code}}
    observed = f"Execution logs:\n{printed}\nLast output from code snippet:\n{output}"
    return {"step_number": number, "model_output": f"Step {number}.", "tool_calls": [call], "observations": observed}


@pytest.mark.parametrize("marks", [("", ""), ("0. ", "1. ")])
def test_a_code_agent_of_smolagents_searches_and_visits(marks: tuple[str, str]) -> None:
    steps = [
        step(1, 'found = web_search(query="tower")\nprint(found)', HITS.format(*marks)),
        step(2, "print(visit_webpage('https://a.org/tower'))", "Ann Lee built the tower in 1897."),
        step(3, 'final_answer("Ann Lee")', "", "Ann Lee"),
    ]
    run = read({"question": "Who built it?", "true_answer": "Ann Lee", "intermediate_steps": steps})
    ((page,), (other,)) = run.evidence, run.distractors
    assert page.text == "https://a.org/tower\n\nAnn Lee built it.\n\nAnn Lee built the tower in 1897."
    assert (other.id, other.title, other.text) == ("https://b.org", "Mill", "https://b.org\n\nIt is old.")
    assert run.notes["agent_answer"] == "Ann Lee" and "Step 2." in run.reasoning


@pytest.mark.parametrize(
    ("thought", "before", "after"),
    [
        ("<thought>I look.</thought>", "<execute>", "</execute>"),
        ("Thought: I look.", "<code>", "</code>"),
        ("Thought: I look.", "Code:\n```py", "```<end_code>"),
    ],
)
@pytest.mark.parametrize("final", ["The answer is <solution>Ann Lee</solution>.", "Final Answer: Ann Lee", ""])
def test_code_in_a_text_is_a_search(thought: str, before: str, after: str, final: str) -> None:
    written, last = (
        f"{thought}\n{before}\n{code}\n{after}" for code in ("wikipedia_search('tower')", "final_answer('Ann Lee')")
    )
    observed = "Observation:\nPage: Tower\nSummary: Ann Lee built it.\n\n\n\nPage: Mill\nSummary: It is old."
    turns = [("user", "Solve the task."), ("assistant", written), ("user", observed), ("assistant", final or last)]
    history = [{"role": role, "content": text} for role, text in turns]
    task = {"prompt": "Who built it?", "reference": "Ann Lee"}
    run = read({"state": {"history": history, "success": True}, "task": task})
    assert (run.question, run.answer, run.is_judged) == ("Who built it?", "Ann Lee", True)
    assert {piece.id: piece.text for piece in run.evidence} == {
        "Tower": "Tower\n\nAnn Lee built it.",
        "Mill": "Mill\n\nIt is old.",
    }
    assert run.reasoning.startswith("I look.")


@pytest.mark.parametrize("code", ["re.search('a', text)", "def search(x):\n    pass", "research = 1", "print(1 + 1)"])
def test_other_code_is_no_search(code: str) -> None:
    assert called_in_code("python", {"code": code}) == ("python", {"code": code})
