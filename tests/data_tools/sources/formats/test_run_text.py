"""A run that is written as one text gives the question, the steps and the answer that the text states."""

import json
from typing import Any

import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.known_formats import (
    format_of,
    transcript_of,
    turns_of,
    with_openai_messages,
)
from acc_megatron.data_tools.sources.formats.tagged_run import messages_of_tagged_run
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.errors import Dropped

TAGS = {
    "Search-R1": ("<search>{}</search>", "<information>{}</information>"),
    "ReSearch": ("<search> {} </search>", "<result>\n{}\n</result>"),
    "R1-Searcher": ("<|begin_of_query|>{}<|end_of_query|>", "<|begin_of_documents|>\n{}<|end_of_documents|>"),
    "Search-o1": ("<|begin_search_query|>{}<|end_search_query|>", "<|begin_search_result|>{}<|end_search_result|>"),
}
FIRST = 'Doc 1(Title: "Tower") The tower was built by Ann Lee.\nDoc 2(Title: "Mill") The mill is of brick.'
SECOND = 'Doc 1(Title: "Ann Lee") Ann Lee was born in Hull.'
PASSAGES = [("Tower", "The tower was built by Ann Lee."), ("Mill (place)", "The mill is of brick.\nIt is old.")]
DEMONSTRATION = (
    "Solve a question with Thought, Action, Observation steps.\nQuestion: Who made the bridge?\n"
    "Thought 1: I search bridge.\nAction 1: Search[bridge]\nObservation 1: Bo Ek made it.\n"
    "Thought 2: Bo Ek.\nAction 2: Finish[Bo Ek]\n"
)
REACT = (
    "Thought 1: I search tower.\nAction 1: Search[tower]\nObservation 1: The tower was built by Ann Lee in the year "
    "1897 and restored a century later.\nIt is open.\nThought 2: I know it.\nAction 2: Finish[Ann Lee]\n"
    "Observation 2: Episode finished, reward = 1\n"
)


def tagged(name: str) -> str:
    query, documents = TAGS[name]
    return (
        f"<think>First the tower.</think>\n{query.format('tower')}\n\n{documents.format(FIRST)}\n\n"
        f"<think>Now Ann Lee.</think>\n{query.format('Ann Lee')}\n{documents.format(SECOND)}\n"
        "<think>She is from Hull.</think>\n<answer>Hull</answer>"
    )


def read(value: dict[str, Any]) -> tuple[Row, Trajectory]:
    row = with_openai_messages(Row(value=value, file="runs.jsonl", line=1, byte_offset=0, sha256="ab" * 32))
    assert agent_of(row.value) is AGENT_KINDS["search"]
    return row, AGENT_KINDS["search"].read(row, Resources())


@pytest.mark.parametrize("name", TAGS)
@pytest.mark.parametrize("key", ["full_output", "response", "messages"])
def test_a_run_in_tags_has_one_page_for_each_document(name: str, key: str) -> None:
    text: Any = tagged(name)
    if key == "messages":
        text = [{"role": "user", "content": "Where is she from?"}, {"role": "assistant", "content": text}]
    row, found = read({"question": "Where is she from?", "golden": ["Hull"], key: text, "correct": True})
    texts = {piece.id: piece.text for piece in found.evidence}
    assert list(texts) == ["Tower", "Mill", "Ann Lee"]
    assert texts["Mill"].endswith("The mill is of brick.") and "brick" not in texts["Tower"]
    assert (found.question, found.answer, found.notes["agent_answer"]) == ("Where is she from?", "Hull", "Hull")
    turns = turns_of(row.value, found)
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert [json.loads(call)["arguments"] for turn in turns for call in turn.tool_calls] == [
        {"query": "tower"},
        {"query": "Ann Lee"},
    ]
    assert turns[1].reasoning == "First the tower." and (turns[-1].text, turns[-1].supervised) == ("Hull", True)
    assert [turn.text for turn in turns if turn.role == "tool"] == [FIRST, SECOND]


def test_a_query_without_documents_stays_in_the_text_before_the_next_one() -> None:
    text = "<search>a</search> no, <search>b</search><information>x</information>done <search>c</search>"
    messages = messages_of_tagged_run(text)
    assert [message["content"] for message in messages] == ["<search>a</search> no,", "x", "done <search>c</search>"]
    assert messages[0]["tool_calls"][0]["function"]["arguments"] == {"query": "b"}


@pytest.mark.parametrize(
    "text",
    [
        f"{DEMONSTRATION}Question: Who built the tower?\n{REACT}",
        f"Below is an instruction.\n\n### Instruction:\nWho built the tower?\n\n### Response:\n{REACT}",
    ],
)
@pytest.mark.parametrize("key", ["prompt", "traj"])
def test_react_text_is_read_without_its_demonstrations(text: str, key: str) -> None:
    row, found = read({"prompt": "", key: text, "gt": "ann lee", "pred": "ann lee", "reward": True})
    assert (found.question, found.answer, found.is_judged) == ("Who built the tower?", "ann lee", True)
    (piece,) = found.evidence
    assert "Ann Lee" in piece.text and "It is open." in piece.text and "Bo Ek" not in piece.text
    assert found.reasoning == "I search tower.\n\nI know it."
    turns = turns_of(row.value, found)
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert turns[0].text == "Who built the tower?" and turns[1].text.endswith("Action 1: Search[tower]")


@pytest.mark.parametrize("label", ["Plan", "ActionPath"])
def test_steps_with_other_labels_are_read_without_demonstrations(label: str) -> None:
    demonstration = DEMONSTRATION.replace("Thought 1:", f"{label} 1: Start\nThought 1:")
    run = REACT.replace("Thought 1:", f"{label} 1: Start\nThought 1:").replace(
        "Thought 2:", f"{label} 2: End\nThought 2:"
    )
    _, found = read({"prompt": f"{demonstration}Question: Who built the tower?\n{run}", "gt": "ann lee"})
    (piece,) = found.evidence
    assert found.question == "Who built the tower?" and piece.text.endswith("It is open.")
    assert "bridge" not in found.reasoning and f"{label} 2: End" in found.reasoning


def test_a_run_in_python_lists_is_read() -> None:
    call = {"role": "assistant", "content": "Thought: I search.\nAction: search[tower's builder]"}
    turns = [{"role": "user", "content": "Who built it?"}, call, {"role": "user", "content": "Observation: Ann Lee."}]
    turns.append({"role": "assistant", "content": "Thought: I know.\nAction: finish[Ann Lee]"})
    for key in ("traj", "messages"):
        _, found = read({key: repr(turns), "prompt": "[]", "gt": "ann lee", "pred": "ann lee", "reward": "True"})
        assert (found.question, found.reasoning) == ("Who built it?", "I search.\n\nI know.")
        assert [piece.text for piece in found.evidence] == ["search: tower's builder\n\nAnn Lee."]


@pytest.mark.parametrize("form", ["({0})Title: {1} Text:  {2}", "({0}){1}   {2}", "[{0}] Title: {1}\n{2}"])
def test_a_thought_that_spans_the_run_is_kept_to_its_end_under_any_key(form: str) -> None:
    first = "\n".join(form.format(i, title, text) for i, (title, text) in enumerate(PASSAGES, start=1))
    query, documents = TAGS["R1-Searcher"]
    run = f"I look up the tower. {query.format('tower')}\n\n{documents.format(first)}\n\nAnn Lee built it."
    text = f"{run}</think>\n\n<answer> Ann Lee </answer>"
    chat = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": text}]
    for value in ({"question": "Who?", "gen_text_store": text}, {"messages": chat}):
        row, found = read(value | {"answer": "Ann Lee"})
        assert found.reasoning == "I look up the tower.\n\nAnn Lee built it."
        assert [(turn.text, turn.reasoning) for turn in turns_of(row.value, found)[-1:]] == [
            ("Ann Lee", "Ann Lee built it.")
        ]
        assert [(piece.id, piece.text.partition("\n\n")[2]) for piece in found.evidence] == PASSAGES


def test_a_prompt_of_search_r1_gives_the_question_after_it() -> None:
    prompt = (
        "Answer the given question. You can search with <search> query </search> and it returns results between "
        "<information> and </information>. Question: Where is she from?\n"
    )
    found = transcript_of({"response": prompt + tagged("Search-R1")})
    assert found.prompt == "Where is she from?" and [step.tool for step in found.steps] == ["search", "search"]


@pytest.mark.parametrize("text", ["", "Action: think\nand act", "<search>x</search>", "Observation: x\nAction: y[z]"])
def test_a_text_without_a_call_and_its_output_is_no_run(text: str) -> None:
    assert format_of({"prompt": text, "question": "q"}) is None


@pytest.mark.parametrize(
    "truth", [{"gts": {"target": ["Lund"]}}, {"reward_model": {"ground_truth": {"target": ["Lund"]}}}]
)
def test_a_rollout_of_verl_finds_its_question_in_the_prompt_next_to_it(truth: dict[str, Any]) -> None:
    text = "<think>I search.</think><search>a</search><information>Lund.</information><answer>Lund</answer>"
    prompt = "<|im_start|>user\nAnswer the given question. Question: Where?\n<|im_end|>\n<|im_start|>assistant\n"
    for row in ({"input": prompt, "output": text}, {"sequences_str": prompt + text}):
        read = Row(value=row | truth, file="f", line=1, byte_offset=0, sha256="ab" * 32)
        run = AGENT_KINDS["search"].read(read, Resources())
        assert (run.question, run.answer, len(run.evidence)) == ("Where?", "Lund", 1)


@pytest.mark.parametrize(
    "row",
    [
        {
            "messages": [
                {"role": "user", "content": "Who?"},
                {"role": "assistant", "content": "Action: finish[Ann Lee]"},
            ]
        },
        {"question": "Who?", "response": "Step 1: I know it.</think>\n<answer> Ann Lee </answer>"},
        {"question": "Who?", "trace": {"messages": [{"role": "assistant", "content": "Ann Lee"}], "steps": []}},
    ],
)
def test_a_run_that_answers_without_a_search_is_dropped_and_not_unknown(row: dict[str, Any]) -> None:
    with pytest.raises(Dropped, match="no_evidence"):
        read(row | {"answer": "Ann Lee"})


@pytest.mark.parametrize(
    "last", ["Episode finished, reward = 1", "Episode finished, reward = True", "Answer is CORRECT"]
)
def test_an_answer_that_the_environment_accepted_is_the_truth_of_a_row_without_one(last: str) -> None:
    run = REACT.replace("Episode finished, reward = 1", last)
    _, found = read({"instruction": "Who built the tower?", "input": "", "output": run})
    assert (found.question, found.answer, found.ground_truth) == ("Who built the tower?", "Ann Lee", "Ann Lee")
    with pytest.raises(Dropped, match="no_ground_truth"):
        read({"instruction": "Who built the tower?", "output": run.replace(last, "Episode finished, reward = 0")})


MARKED = (
    "<|im_start|>system\nYou search.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "I look.\n<search>tower</search>\n<|im_end|><|im_start|>user\n<tool_response>\n<information>{}</information>\n"
    "You have no more searches.\n</tool_response><|im_end|>\n"
    "<|im_start|>assistant\nShe did.\n<answer>Ann Lee</answer><|im_end|>",
)


@pytest.mark.parametrize(
    "asked", ["Who built it?", "Use <search> query </search>. Question: Who built it?\nResults are in <information>."]
)
def test_the_markup_of_a_chat_template_is_no_part_of_a_run(asked: str) -> None:
    prompt, reply = MARKED[0].format(asked), MARKED[1].format(FIRST)
    for row in ({"prompt": prompt, "response": reply}, {"text": prompt + reply}, {"input": prompt, "output": reply}):
        _, found = read(row | {"answer": "Ann Lee"})
        assert (found.question, found.answer) == ("Who built it?", "Ann Lee")
        assert found.reasoning == "I look.\n\nShe did." and [piece.id for piece in found.evidence] == ["Tower", "Mill"]


@pytest.mark.parametrize(
    "action",
    [
        '{"action": "search", "action_input": "tower"}', "{'function': 'search', 'parameters': {'query': 'tower'}}",
        '\n```json\n{\n  "action": "search",\n  "action_input": {"query": "tower"}\n}\n```', "search[tower]",
        'search("tower")', "search(query='tower', top=3)", "search\nAction Input: tower",
    ],
)  # fmt: skip
def test_an_action_can_be_data_or_a_call(action: str) -> None:
    final = "Thought: I know.\nFinal Answer: Ann Lee"
    text = f"Thought 1: I look.\nAction 1: {action}\nObservation 1: Ann Lee built it.\n{final}"
    turns = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": f"Thought: I look.\nAction: {action}"},
    ]
    turns += [{"role": "user", "content": "Observation: Ann Lee built it."}, {"role": "assistant", "content": final}]
    for row in ({"question": "Who?", "output": text}, {"messages": turns}):
        _, found = read(row | {"answer": "Ann Lee"})
        assert found.reasoning == "I look." and [piece.id for piece in found.evidence] == ["search: tower"]


def test_an_answer_that_was_judged_right_is_not_compared_with_itself() -> None:
    text = "The tower was built by three people:\n\n- **Ann Lee**, 1897\n- **Bo Ek**, 1912\n- their son, 1950"
    chat = [{"role": "assistant", "content": "Action: search[tower]"}, {"role": "user", "content": "Observation: x y"}]
    _, found = read(
        {"question": "By whom?", "messages": [*chat, {"role": "assistant", "content": text}], "correct": True}
    )
    assert found.answer == found.ground_truth == text
