"""D11: a judge decides only what the rule leaves open; its verdict is in the triple, and no request is sent twice."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.teacher_server import Teacher, completion, send_json

from acc_megatron.common.chat_client import ClientSettings
from acc_megatron.data_tools.compile.compile import compile_inputs
from acc_megatron.data_tools.compile.judge import JudgeSettings
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.sources.search.answer_match import is_open, matches
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError

ANSWERS = {
    "Who led it?": ("Old Hickory", "Andrew Jackson"),  # only a reader knows that they are the same
    "Who won it?": ("Jon Berg", "Mara Lind"),  # another answer, but the rule cannot know that
    "How many?": ("15", "5"),  # certainly wrong
    "Which city?": ("It is Paris.", "Paris"),  # right
    "Who sang?": ("The Fab Four", "The Beatles"),  # the judge gives no verdict
}


def write_runs(path: Path) -> Path:
    hits = '[{"url": "u", "title": "T", "text": "Some text."}]'
    with path.open("w") as file:
        for question, (answer, truth) in ANSWERS.items():
            step = {"thought": "I look.", "tool": "search", "input": {"query": "x"}, "output": hits}
            row = {"question": question, "steps": [step], "answer": answer, "ground_truth": truth}
            file.write(json.dumps(row) + "\n")
    return path


def judging(handler: Any, body: dict[str, Any], _: int) -> None:
    text = body["messages"][0]["content"]
    verdict = "It is his nickname.\nVERDICT: right" if "Old Hickory" in text else "Another person.\nVERDICT: wrong"
    send_json(handler, completion("I am not sure." if "Fab Four" in text else verdict))


def compiled(folder: Path, url: str, tokenizer: Tokenizer) -> dict[str, Any]:
    client = ClientSettings(endpoint=url, model="judge-1", tries=1)
    return compile_inputs(
        [write_runs(folder / "runs.jsonl")],
        folder / "out",
        agent="auto",
        resources=[],
        settings=CompileSettings(),
        tokenizer=tokenizer,
        judge=JudgeSettings(client=client, cache=folder / "judge.sqlite"),
    )


def test_a_judge_that_answers_no_request_ends_the_compile(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"127.0.0.1:1/.* answered none of 3 requests \(connection: 3\): check"):
        compiled(tmp_path, "http://127.0.0.1:1/v1", tokenizer)
    assert not (tmp_path / "out").exists()


def test_the_judge_is_asked_about_open_answers_only_and_its_verdict_is_kept(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    with Teacher(judging) as server:
        manifest = compiled(tmp_path, server.url, tokenizer)
        told = capsys.readouterr().err
        again = compiled(tmp_path, server.url, tokenizer)
        asked = [json.loads(body)["messages"][0]["content"] for body in server.asked]
        assert max(server.asked.values()) == 1, "the second run uses the cache"
    assert "the judge judge-1 finds 1 of 3 open answers right; it gave no verdict on 1 (unclear_verdict: 1)" in told
    assert len(asked) == 3 and not any("How many?" in text or "Which city?" in text for text in asked)
    assert manifest["dropped"] == again["dropped"] == {"wrong_answer": 3}
    found = manifest["judge"]
    assert (found["model"], found["right"], found["wrong"]) == ("judge-1", 1, 1)
    assert found["unusable"] == {"unclear_verdict": 1}
    triples = {row["question"]: row for row in map(json.loads, (tmp_path / "out" / "triples.jsonl").open())}
    assert set(triples) == {"Who led it?", "Which city?"}
    notes = triples["Who led it?"]["settings"]["notes"]
    assert notes["judge"] == {"model": "judge-1", "verdict": "right", "reply": "It is his nickname.\nVERDICT: right"}
    assert "judge" not in triples["Which city?"]["settings"]["notes"]
    details = [json.loads(line)["detail"] for line in (tmp_path / "out" / "quarantine.jsonl").open()]
    assert sum("the judge 'judge-1' agrees" in detail for detail in details) == 1


@pytest.mark.parametrize(
    ("answer", "truth", "is_left_open"),
    [
        ("Old Hickory", "Andrew Jackson", True),
        ("a dozen", "12", True),
        ("Certainly.", "Yes", True),
        ("13", "12", False),
        ("3/4", "0.75", True),
        ("0.75", "75%", True),
        ("No, never.", "Yes", False),
        ("B", "A", False),
        ("It was not Mara Lind.", "Mara Lind", False),
        ("I could not find the answer.", "Mara Lind", False),
        ("", "Mara Lind", False),
    ],
)
def test_an_answer_is_open_unless_it_states_another_value(answer: str, truth: str, is_left_open: bool) -> None:
    assert not matches(answer, truth) and is_open(answer, truth) is is_left_open
