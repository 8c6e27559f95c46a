"""Complete runs against a real server with a tiny model and in a folder: killed, rejected, broken and resumed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.commands import ROOT, good
from support.eval_runs import TASK, endpoint, start, tree, truthful
from support.in_process import acc_in_process
from support.model_server import answering
from support.teacher_server import Behaviour, Teacher, completion, drip, send, send_json

from acc_megatron.errors import DataError
from acc_megatron.evaluate.runner import EvaluationIncomplete, check_complete, evaluate
from acc_megatron.evaluate.settings import run_from_tree


@pytest.fixture(scope="module")
def model_answers(hf_dir: Path) -> Behaviour:
    return answering(hf_dir)


def test_a_served_model_answers_as_the_same_model_in_a_folder(
    tmp_path: Path, hf_dir: Path, model_answers: Behaviour
) -> None:
    """The same prompts, ids and greedy answers, and therefore no difference between the two models."""
    both = {
        kind: {"kind": kind, "items": 2, "length_tokens": [900], "max_new_tokens": 8} for kind in ("graphwalks", "mrcr")
    }
    with Teacher(model_answers) as teacher:
        models = {"served": endpoint(teacher, price_input=2.0, price_output=3.0), "local": {"folder": str(hf_dir)}}
        results = start(tmp_path, models, benchmarks=both)
    items = {model: [item for item in results["items"] if item["model"] == model] for model in models}
    assert len(items["served"]) == 4
    for served, local in zip(items["served"], items["local"], strict=True):
        assert served["answers"] == local["answers"]
        assert served["answers"][0]["new_tokens"] == 8 and served["answers"][0]["finish_reason"] == "length"
        assert served["answers"][0]["response"]
    for part in results["benchmarks"].values():
        (difference,) = part["differences"]
        assert (difference["model"], difference["minus"], difference["num_items"]) == ("local", "served", 2)
        assert set(difference["means"].values()) == {0.0}
        asked = part["models"]["served"]["asked"]
        assert asked["cost"] == pytest.approx((2 * asked["prompt_tokens"] + 3 * asked["new_tokens"]) / 1e6, abs=1e-6)
    assert json.loads((tmp_path / "results.json").read_text()) == {k: v for k, v in results.items() if k != "lines"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.sqlite", "report.html", "results.json"]


def test_a_killed_run_asks_no_answered_question_again(tmp_path: Path, model_answers: Behaviour) -> None:
    """SIGKILL to the real command, with hanging, failed and broken replies: the results equal an undisturbed run's."""
    fates = {1: "hang", 2: "500", 3: "broken"}
    seen: list[str] = []

    def behaviour(handler: Any, body: dict[str, Any], times: int) -> None:
        text = body["messages"][0]["content"]
        if text not in seen:
            seen.append(text)
        fate = fates.get(seen.index(text)) if times == 1 else None
        if fate == "hang":
            time.sleep(2.5)
        elif fate == "500":
            send(handler, 500, b"oops")
        elif fate == "broken":
            send(handler, 200, b'{"choices": [{"mess')
        else:
            time.sleep(0.15)
            model_answers(handler, body, times)

    with Teacher(behaviour) as teacher:
        run = tmp_path / "run.toml"
        run.write_text(f"""
            name = "killed"
            bootstrap_samples = 50
            [models.tiny]
            endpoint = "{teacher.url}"
            model = "m"
            window_tokens = 4096
            timeout_seconds = 1.5
            tries = 3
            concurrency = 2
            [benchmarks.walks]
            kind = "graphwalks"
            items = 10
            length_tokens = [900]
            max_new_tokens = 4
            """)
        command = [sys.executable, "-m", "acc_megatron", "eval", str(run), "--out", str(tmp_path / "out"), "--json"]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while len(teacher.answered) < 6 and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out" / "results.json").exists()
        time.sleep(0.3)  # the server may still be writing its last replies
        sent_before = dict(teacher.asked)
        done = good(acc_in_process(*command[3:]))
        assert done["walks"]["models"]["tiny"]["num_items"] == 10
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        assert results["requests"]["from_cache"] >= 4
        again = {data for data, times in teacher.asked.items() if times > sent_before.get(data, 0)}
        in_flight = [data for data in again if data in sent_before]
        # 6 complete replies were sent; at most the 2 in flight and the disturbed ones are repeated
        assert len(in_flight) <= 2 + len(fates)
        assert results["requests"]["from_cache"] == 10 - len(again)
        total = sum(teacher.asked.values())
        assert good(acc_in_process(*command[3:])) == done
        assert sum(teacher.asked.values()) == total  # a finished run asks nothing
        walks = {"kind": "graphwalks", "items": 10, "length_tokens": [900], "max_new_tokens": 4}
        models = {"tiny": endpoint(teacher)}
        unbroken = start(tmp_path / "other", models, benchmarks={"walks": walks})
        assert unbroken["items"] == results["items"]


def test_right_answers_score_one(tmp_path: Path) -> None:
    with Teacher(truthful) as teacher:
        results = start(tmp_path, {"m": endpoint(teacher)})
        summary = results["benchmarks"]["walks"]["models"]["m"]
        assert summary["means"]["f1"] == 1 and summary["intervals"]["f1"] == [1, 1]
        assert summary["groups"]["problem_type"]["bfs"]["num_items"] == 3
        check_complete(results)
        body = json.loads(next(iter(teacher.asked)))
        assert (body["temperature"], body["max_tokens"], body["seed"], body["stream"]) == (0, 8, 0, False)


@pytest.mark.parametrize(
    ("template", "message", "finish", "score"),
    [
        ("qwen3", {"content": "Final Answer: []"}, "length", True),
        # the prompt opened the thinking; nothing, a tag or the server closes it; it may be empty
        ("qwen3-thinking-2507", {"content": "so, Final Answer: []"}, "length", False),
        ("qwen3-thinking-2507", {"content": "so, Final Answer: []", "reasoning_content": None}, "stop", False),
        ("qwen3-thinking-2507", {"content": "so, Final Answer: []", "reasoning_content": ""}, "length", False),
        ("qwen3-thinking-2507", {"content": "so</think>Final Answer: []"}, "length", True),
        ("qwen3-thinking-2507", {"content": "\n\n</think>\n\nFinal Answer: []"}, "stop", True),
        ("qwen3-thinking-2507", {"content": "</think>Final Answer: []"}, "length", True),
        ("qwen3-thinking-2507", {"content": "Final Answer: []", "reasoning_content": ""}, "stop", True),
        ("qwen3-thinking-2507", {"content": "Final Answer: []", "reasoning": "so"}, "stop", True),
    ],
)
def test_unclosed_thinking_is_not_an_answer(
    tmp_path: Path, template: str, message: dict[str, Any], finish: str, score: bool
) -> None:
    reply = {"choices": [{"message": message, "finish_reason": finish}]}
    with Teacher(lambda handler, _, __: send_json(handler, reply)) as teacher:
        results = start(tmp_path, {"m": endpoint(teacher, template=template)})
    assert (
        results["benchmarks"]["walks"]["models"]["m"]["means"]["f1"] > 0
    ) == score  # the right answer of some questions is empty
    cut = results["benchmarks"]["walks"]["models"]["m"]["asked"]["num_cut_at_max_new_tokens"]
    assert cut == (6 if finish == "length" else 0)


def test_an_answer_that_was_cut_inside_separate_thinking_is_empty(tmp_path: Path) -> None:
    reply = completion("", reasoning="Final Answer: []", finish="length")
    reply["choices"][0]["message"]["content"] = None
    with Teacher(lambda handler, _, __: send_json(handler, reply)) as teacher:
        results = start(tmp_path, {"m": endpoint(teacher)})
    assert results["benchmarks"]["walks"]["models"]["m"]["means"]["flexible_f1"] == 0
    assert results["items"][0]["answers"][0]["reasoning_chars"] == len("Final Answer: []")


def test_avg_at_k_asks_with_k_seeds_and_averages_within_an_item(tmp_path: Path) -> None:
    def sometimes(handler: Any, body: dict[str, Any], times: int) -> None:
        if body["seed"] % 4:
            truthful(handler, body, times)
        else:
            send_json(handler, completion("no"))

    with Teacher(sometimes) as teacher:
        results = start(tmp_path, {"m": endpoint(teacher, temperature=0.6, top_p=0.95)}, repeats=4, limit=2, seed=4)
        assert sorted(json.loads(data)["seed"] for data in teacher.asked) == [4, 4, 5, 5, 6, 6, 7, 7]
        assert all(json.loads(data)["top_p"] == 0.95 for data in teacher.asked)
    assert [[answer["scores"]["f1"] for answer in item["answers"]] for item in results["items"]] == [[0, 1, 1, 1]] * 2
    assert [item["scores"]["f1"] for item in results["items"]] == [0.75, 0.75]


def test_a_prompt_over_the_window_is_counted_and_never_cut(tmp_path: Path) -> None:
    walks = {"kind": "graphwalks", "items": 2, "length_tokens": [900, 2000], "max_new_tokens": 8}
    with Teacher(truthful) as teacher:
        results = start(tmp_path, {"m": endpoint(teacher, window_tokens=1500)}, benchmarks={"walks": walks})
        assert len(teacher.asked) == 2
    summary = results["benchmarks"]["walks"]["models"]["m"]
    assert (summary["num_items"], summary["means"]["f1"]) == (2, 1)
    assert summary["asked"]["without_answer"] == {"over_window": 2}
    assert any(
        re.search(r"2 without answer, over_window: .* over the window of 1500", line) for line in results["lines"]
    )
    check_complete(results)  # only questions that fit the window must have an answer
    assert "2 over_window" in (tmp_path / "report.html").read_text()


def test_a_question_without_an_answer_is_not_scored_and_the_next_start_asks_only_these(tmp_path: Path) -> None:
    broken = True

    def behaviour(handler: Any, body: dict[str, Any], times: int) -> None:
        bfs = TASK.findall(body["messages"][0]["content"])[-1][1]
        if broken and bfs:
            send(handler, 400, b'{"error": {"message": "too hard"}}')
        else:
            truthful(handler, body, times)

    with Teacher(behaviour) as teacher:
        results = start(tmp_path, {"m": endpoint(teacher)})
        summary = results["benchmarks"]["walks"]["models"]["m"]
        assert (summary["num_items"], summary["means"]["f1"]) == (3, 1)
        assert summary["asked"]["without_answer"] == {"http_400": 3}
        with pytest.raises(EvaluationIncomplete, match=r"3 questions have no answer \(http_400 3\)"):
            check_complete(results)
        broken = False
        results = start(tmp_path, {"m": endpoint(teacher)})
        check_complete(results)
        assert results["benchmarks"]["walks"]["models"]["m"]["num_items"] == 6
        assert sorted(teacher.asked.values()) == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (lambda handler, _, __: drip(handler, seconds=3), "timeout"),
        (lambda handler, _, __: drip(handler, part=b"x" * 65_536), "reply_too_large"),
        (lambda handler, _, __: send(handler, 200, b"[" * 1000), "bad_reply"),
        (
            lambda handler, _, __: send(handler, 401, b""),
            r"models\.m: .* rejected the API key .* environment variable ACC_API_KEY",
        ),
        (
            lambda handler, _, __: send(handler, 404, b""),
            r"models\.m: .* model .status 404.*the request was for model 'm'",
        ),
        (lambda handler, _, __: send(handler, 302, b"", Location="http://x.invalid/"), "redirects"),
    ],
)
def test_a_server_without_any_usable_answer_ends_the_run_with_the_reason(
    tmp_path: Path, behaviour: Behaviour, reason: str
) -> None:
    with Teacher(behaviour) as teacher, pytest.raises(DataError, match=reason) as told:
        start(tmp_path, {"m": endpoint(teacher, tries=1, timeout_seconds=1.0, max_reply_bytes=500_000)}, limit=2)
    assert teacher.url in str(told.value)
    assert not (tmp_path / "results.json").exists()


def test_budgets_of_requests_tokens_and_time_end_a_run(tmp_path: Path) -> None:
    def slow(handler: Any, body: dict[str, Any], times: int) -> None:
        time.sleep(0.8)
        truthful(handler, body, times)

    with Teacher(slow) as teacher:
        for limits, reason in (({"max_requests": 2}, "budget_exhausted"), ({"max_seconds": 2.0}, "out_of_time")):
            results = start(tmp_path / reason, {"m": endpoint(teacher, concurrency=1)}, **limits)
            refused = results["benchmarks"]["walks"]["models"]["m"]["asked"]["without_answer"]
            assert 1 <= refused[reason] <= 5 and set(refused) == {reason}
            with pytest.raises(EvaluationIncomplete, match=reason):
                check_complete(results)
        with pytest.raises(DataError, match="budget_exhausted"):
            start(tmp_path / "none", {"m": endpoint(teacher)}, max_tokens=100)


def test_the_key_comes_from_the_environment_and_is_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret-123")
    with Teacher(truthful) as teacher:
        start(tmp_path, {"m": endpoint(teacher, key_variable="MY_KEY")}, limit=1)
        assert teacher.headers[0]["Authorization"] == "Bearer sk-secret-123"
    assert not any(b"sk-secret" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_report_compares_two_runs_with_each_other_and_with_the_paper(
    tmp_path: Path, model_answers: Behaviour
) -> None:
    with Teacher(truthful) as right, Teacher(model_answers) as wrong:
        walks = {"kind": "graphwalks", "items": 2, "length_tokens": [900, 2100], "max_new_tokens": 4}
        start(tmp_path / "a", {"m": endpoint(wrong)}, benchmarks={"walks": walks})
        run = run_from_tree(tree({"m": endpoint(right)}, name="second", benchmarks={"walks": walks}), "x")
        evaluate(run, tmp_path / "b", compare_with=[tmp_path / "a"], show=print)
    page = (tmp_path / "b" / "report.html").read_text()
    assert "m minus m (test)" in page
    assert ">100.0 [100.0, 100.0]<" in page and "-100.0" not in page
    for text in ("paper: with ACC", "77.51", "72.95", "Qwen3-235B", "generated, not the published ones", "<svg"):
        assert text in page
    assert "<script" not in page and "http://www" not in page.split("<body>")[0]
    with pytest.raises(DataError, match="no results of an evaluation"):
        evaluate(run, tmp_path / "b", compare_with=[tmp_path / "none"], show=print)


def test_a_folder_gives_the_same_run_as_the_settings_it_stands_for(tmp_path: Path, hf_dir: Path) -> None:
    short = acc_in_process("eval", hf_dir, "--out", tmp_path / "a", "--items", "2", "--length-tokens", "1000",
                "--max-new-tokens", "4", "--limit", "1", "--json")  # fmt: skip
    scores = good(short)
    page = (tmp_path / "a" / "report.html").read_text()
    assert "temperature 0, avg@1, seed 0" in page and "lengths in tokens of " in page
    assert set(scores) == {"graphwalks", "mrcr"} and scores["mrcr"]["models"]["tiny"]["num_items"] == 1
    assert "1 of 1" in short.stderr
    run = tmp_path / "run.toml"
    benchmark = "items = 2\nlength_tokens = [1000]\nmax_new_tokens = 4\n"
    run.write_text(
        f'name = "tiny"\n[models.tiny]\nfolder = "{hf_dir}"\n'
        + "".join(f'[benchmarks.{kind}]\nkind = "{kind}"\n{benchmark}' for kind in ("graphwalks", "mrcr"))
    )
    done = acc_in_process("eval", run, "--out", tmp_path / "b", "--limit", "1")
    assert done.returncode == 0, done.stderr
    assert re.search(r"graphwalks +tiny +1 item  f1 0\.0", done.stdout)
    pair = [json.loads((tmp_path / name / "results.json").read_text()) for name in "ab"]
    assert pair[0]["items"] == pair[1]["items"] and pair[0]["benchmarks"] == pair[1]["benchmarks"]
    refused = acc_in_process("eval", run, "--out", tmp_path / "b", "--items", "3")
    assert refused.returncode == 2 and "--items is for an HF_DIR" in refused.stderr
    refused = acc_in_process("eval", run, "--out", run, "--limit", "1")
    assert refused.returncode == 2
    assert refused.stderr == f"error: {run}: a file exists where a folder is needed: choose another path\n"


def test_importing_the_runner_does_not_import_torch() -> None:
    code = "import sys, acc_megatron.evaluate.runner; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
