"""S8: with a hostile endpoint, time, bytes and cost are bounded, nothing is paid for twice, the key stays secret."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.teacher_server import Behaviour, Teacher, completion, drip, send, send_json

from acc_megatron.common.answer_cache import Budget
from acc_megatron.common.chat_client import ClientSettings
from acc_megatron.data_tools.convert.render import render_turns, triple_turns
from acc_megatron.data_tools.reason.prices import Prices
from acc_megatron.data_tools.reason.reason import ReasonSettings, reason_folder
from acc_megatron.data_tools.schema import Triple
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.verify_answer import Verifier
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import ConfigError, DataError

KEY = "sk-very-secret-0123456789"
HIDDEN_KEY = f"{KEY[:5]}\u200b{KEY[5:].upper()}"  # not the key until a character that nobody sees is taken out
QUICK: dict[str, Any] = {"timeout_seconds": 30, "tries": 2, "backoff_seconds": 0.01, "longest_wait_seconds": 0.3}


def write_compiled(folder: Path, count: int = 3, agent: str = "search", **changes: Any) -> Path:
    folder.mkdir(parents=True)
    with (folder / "triples.jsonl").open("w") as file:
        for number in range(count):
            piece = {"id": "a.py", "title": "a.py", "text": "one\ntwo\n", "kind": "evidence"}
            far = {"id": "d", "title": "d", "text": "far " * 50, "kind": "distractor"}
            row = {
                "id": f"t{number}",
                "agent": agent,
                "question": f"Which number? ({number})",
                "context": [piece, far],
                "reasoning": "old",
                "reasoning_source": "agent",
                "answer": f"Paris {number}",
                "ground_truth": f"Paris {number}",
                "settings": {"tokens": 200},
            }
            file.write(json.dumps(row | changes) + "\n")
    return folder


def answer_of(body: dict[str, Any]) -> str:
    match = re.search(r"Which number\? \((\d+)\)", body["messages"][0]["content"])
    assert match
    return f"It is Paris {match[1]}."


def truthful(handler: Any, body: dict[str, Any], _: int) -> None:
    send_json(handler, completion(answer_of(body)))


@pytest.fixture
def ask(tmp_path: Path, tokenizer: Tokenizer) -> Any:
    """Runs `reason` on a folder against a server; returns the manifest."""

    def run(teacher: Teacher, compiled: Path | None = None, **options: Any) -> dict[str, Any]:
        settings = ReasonSettings(**options.pop("settings", {}))
        budget = Budget(**options.pop("budget", {}))
        prices = options.pop("prices", None)
        client = ClientSettings(**{"endpoint": teacher.url, "model": "m", "api_key": KEY, **QUICK, **options})
        if compiled is None and not (compiled := tmp_path / "compiled").exists():
            write_compiled(compiled)
        return reason_folder(
            compiled,
            tmp_path / "out",
            settings,
            client,
            budget=budget,
            cache_path=tmp_path / "cache.sqlite",
            verifier=Verifier(Resources()),
            tokenizer=tokenizer,
            prices=prices,
        )

    return run


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_verified_reasoning_is_kept_and_the_counts_add_up(
    tmp_path: Path, tokenizer: Tokenizer, ask: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def behaviour(handler: Any, body: dict[str, Any], _: int) -> None:
        wrong = "(1)" in body["messages"][0]["content"]
        send_json(handler, completion("It is Rome." if wrong else answer_of(body), reasoning="Long thought."))

    with Teacher(behaviour) as teacher:
        manifest = ask(teacher)
        assert "reason: 100% of " in capsys.readouterr().err
        assert (manifest["documents_in"], manifest["documents_out"]) == (3, 2)
        assert manifest["dropped"] == {"wrong_answer": 1}
        assert manifest["by_agent"]["search"]["pass_rate"] == pytest.approx(2 / 3)
        kept = [Triple.from_dict(row, "x") for row in rows(tmp_path / "out" / "triples.jsonl")]
        assert [triple.id for triple in kept] == ["t0", "t2"]
        for triple in kept:
            assert (triple.reasoning, triple.reasoning_source) == ("Long thought.", "teacher:m")
            assert triple.answer == triple.ground_truth
            assert triple.settings["tokens"] == len(render_turns(triple_turns(triple), tokenizer).ids)
        (refused,) = rows(tmp_path / "out" / "quarantine.jsonl")
        assert (refused["line"], refused["stage"], refused["reason"]) == (2, "reason", "wrong_answer")
        first = (tmp_path / "out" / "triples.jsonl").read_bytes()
        assert ask(teacher)["requests"]["from_cache"] == 3
        assert (tmp_path / "out" / "triples.jsonl").read_bytes() == first
        assert set(teacher.asked.values()) == {1}


def test_requests_tokens_and_cost_are_shown_and_in_the_manifest(ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def behaviour(handler: Any, body: dict[str, Any], _: int) -> None:
        usage = {"prompt_tokens": 1_000, "completion_tokens": 200, "total_tokens": 1_200}
        send_json(handler, completion(answer_of(body)) | {"usage": usage})

    with Teacher(behaviour) as teacher:
        for _ in range(2):  # a second run pays for nothing, and reports what the cache has cost
            found = ask(teacher, prices=Prices(input=2.0, output=10.0))["requests"]
            assert (found["requests"], found["input_tokens"], found["output_tokens"]) == (3, 3_000, 600)
            assert found["cost"] == found["largest_cost"] == pytest.approx(0.012) and found["price_out"] == 10.0
            assert "requests 3, tokens in 3,000, out 600, cost 0.01" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"{broken", "bad_reply"),
        (b'{"choices": []}', "bad_reply"),
        (b'{"choices": [{"message": {"content": 5}}]}', "bad_reply"),
        (b"[" * 100_000, "bad_reply"),
        (b'{"choices": [{"message": {"content": "\\ud800"}}]}', "bad_reply"),
        (b"\xff\xfe", "bad_reply"),
        (b"x" * 300_000, "reply_too_large"),
        (completion("It is Paris.", finish="length"), "cut_off"),
        (completion("It is Paris 0 1 2.", reasoning=""), "no_reasoning"),
        (completion("Paris 0, Paris 1, Paris 2<|im_end|>"), "control_string_in_answer"),
        (completion("Paris 0, Paris 1, Paris 2", reasoning="so </think> there"), "control_string_in_target"),
        (completion("Paris 0, Paris 1, Paris 2", reasoning=f"the key is {KEY}"), "echoes_key"),
    ],
)
def test_an_invalid_reply_is_rejected_with_a_reason_and_not_requested_again(
    tmp_path: Path, ask: Any, reply: Any, reason: str
) -> None:
    data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    with Teacher(lambda handler, _, __: send(handler, 200, data)) as teacher:
        for _ in range(2):
            manifest = ask(teacher, max_reply_bytes=200_000)
            assert manifest["dropped"] == {reason: 3} and manifest["documents_out"] == 0
        assert set(teacher.asked.values()) == {1}
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (lambda handler, _, __: drip(handler), "timeout"),
        (lambda handler, _, __: time.sleep(3), "timeout"),
        (lambda handler, _, __: drip(handler, part=b"x" * 65_536), "reply_too_large"),
        (lambda handler, _, __: send(handler, 200, b"\x1f\x8b", Content_Encoding="gzip"), "reply_too_large"),
        (lambda handler, _, __: send(handler, 500, b"oops"), "http_500"),
        (lambda handler, _, __: send(handler, 400, json.dumps({"error": {"message": KEY}}).encode()), "http_400"),
        (lambda handler, _, __: send(handler, 422, json.dumps({"error": HIDDEN_KEY}).encode()), "http_422"),
        (lambda handler, _, __: handler.connection.close(), "connection"),
        (lambda handler, _, __: handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), "connection"),
        (lambda handler, _, __: handler.wfile.write(b"SSH-2.0-lies\r\n\r\n"), "connection"),
    ],
)
def test_slow_hanging_endless_and_failing_replies_end_in_bounded_time_and_bytes(
    tmp_path: Path, ask: Any, behaviour: Behaviour, reason: str
) -> None:
    """S8, together with the tests of invalid replies, redirects and kills."""
    with Teacher(behaviour) as teacher:
        manifest = ask(teacher, max_reply_bytes=1 << 20, timeout_seconds=0.5 if reason == "timeout" else 30)
        assert manifest["dropped"] == {reason: 3}
        assert all(count <= QUICK["tries"] for count in teacher.asked.values())
    assert KEY not in (tmp_path / "out" / "quarantine.jsonl").read_text().lower()


def test_failures_are_retried_after_the_time_in_retry_after(ask: Any) -> None:
    times: list[float] = []

    def behaviour(handler: Any, body: dict[str, Any], number: int) -> None:
        times.append(time.monotonic())
        if number == 1:
            send(handler, 429, b"", Retry_After="0.25")
        elif number == 2:
            send(handler, 503, b"", Retry_After="9999999")  # capped
        else:
            truthful(handler, body, number)

    with Teacher(behaviour) as teacher:
        assert ask(teacher, tries=3, concurrency=1)["documents_out"] == 3
        assert set(teacher.asked.values()) == {3}
    waits = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert all(wait >= 0.24 for wait in (waits[0], waits[1], waits[3], waits[4]))


@pytest.mark.parametrize("location", ["http://elsewhere.example/v1", "/v1/other", "", "http://[::1"])
def test_a_redirect_is_refused_and_the_key_is_sent_nowhere_else(tmp_path: Path, ask: Any, location: str) -> None:
    with Teacher(truthful) as other, Teacher(lambda h, _, __: send(h, 307, b"", Location=location or other.url)) as one:
        with pytest.raises(DataError, match="redirects to"):
            ask(one)
        assert not other.asked
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_an_endpoint_that_denies_access_ends_the_run_immediately(tmp_path: Path, ask: Any, status: int) -> None:
    with Teacher(lambda handler, _, __: send(handler, status, KEY.encode())) as teacher:
        with pytest.raises(DataError) as error:
            ask(teacher)
        assert sum(teacher.asked.values()) <= 8 and KEY not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_error_says_that_no_key_was_sent(ask: Any) -> None:
    refused = pytest.raises(DataError, match=r"rejected the API key \(status 401; no API key was sent\)")
    with Teacher(lambda handler, _, __: send(handler, 401, b"")) as teacher, refused:
        ask(teacher, api_key="")
    assert "Authorization" not in teacher.headers[0]


def test_an_endpoint_that_is_down_ends_the_run(tmp_path: Path, ask: Any) -> None:
    compiled = write_compiled(tmp_path / "many", 60)
    with Teacher(truthful) as teacher:
        pass  # closed again: nobody listens there
    with pytest.raises(DataError, match=r"2\d requests in a row failed"):
        ask(teacher, compiled)


def test_best_of_n_asks_until_an_answer_is_verified(tmp_path: Path, ask: Any) -> None:
    def behaviour(handler: Any, body: dict[str, Any], _: int) -> None:
        right = body["seed"] == 2 and "(0)" in body["messages"][0]["content"]
        send_json(handler, completion(answer_of(body) if right else "Rome"))

    with Teacher(behaviour) as teacher:
        manifest = ask(teacher, settings={"best_of": 4})
        assert manifest["documents_out"] == 1 and manifest["dropped"] == {"wrong_answer": 2}
        assert sum(teacher.asked.values()) == 3 + 4 + 4
    (row,) = rows(tmp_path / "out" / "triples.jsonl")
    assert row["settings"]["teacher"] == {"model": "m", "attempt": 2, "answer": "It is Paris 0."}


def test_v2_shows_the_patch_to_the_teacher_and_keeps_its_final_response_unfiltered(tmp_path: Path, ask: Any) -> None:
    compiled = write_compiled(tmp_path / "swe", agent="swe", answer="--- a/secret\n+++ b/secret")
    seen: list[dict[str, Any]] = []

    def behaviour(handler: Any, body: dict[str, Any], _: int) -> None:
        seen.append(body)
        send_json(handler, completion("Because two is 2.", reasoning="hidden"))

    with Teacher(behaviour) as teacher:
        assert ask(teacher, compiled)["dropped"] == {"patch_empty_patch": 3}
        assert all("--- a/secret" not in body["messages"][0]["content"] for body in seen)
        seen.clear()
        assert ask(teacher, compiled, settings={"swe_v2": True})["documents_out"] == 3
        assert all("--- a/secret" in body["messages"][0]["content"] for body in seen)
        assert {body["temperature"] for body in seen} == {0.0}
    assert {row["reasoning"] for row in rows(tmp_path / "out" / "triples.jsonl")} == {"Because two is 2."}


@pytest.mark.parametrize(("budget", "sent"), [({"max_requests": 2}, 2), ({"max_tokens": 1_250}, 2)])
def test_budgets_apply_to_all_runs_with_one_cache(ask: Any, budget: dict[str, int], sent: int) -> None:
    # a request reserves 200 + 1,000 tokens and costs 100
    with Teacher(truthful) as teacher:
        options = {"settings": {"max_output_tokens": 1_000}, "concurrency": 1}
        for _ in range(2):
            manifest = ask(teacher, budget=budget, **options)
            assert manifest["dropped"].get("budget_exhausted", 0) == 3 - manifest["documents_out"]
            assert sum(teacher.asked.values()) <= sent
        assert ask(teacher, **options)["documents_out"] == 3
        assert set(teacher.asked.values()) == {1}


def test_distractors_are_removed_for_long_reasoning_and_the_row_is_dropped_if_it_still_does_not_fit(
    tmp_path: Path, ask: Any
) -> None:
    def behaviour(handler: Any, body: dict[str, Any], _: int) -> None:
        words = 100 if "(0)" in body["messages"][0]["content"] else 400
        send_json(handler, completion(answer_of(body), reasoning="word " * words))

    with Teacher(behaviour) as teacher:
        manifest = ask(teacher, settings={"budget_tokens": 200})
    assert manifest["dropped"] == {"over_budget": 2}
    (row,) = rows(tmp_path / "out" / "triples.jsonl")
    assert [piece["id"] for piece in row["context"]] == ["a.py"] and row["settings"]["tokens"] <= 200


def test_any_base_url_gets_the_path_of_chat_completions_and_its_query_is_never_shown(tmp_path: Path, ask: Any) -> None:
    for base in ("http://h/v1", "http://h/v1/", "http://h/v1/chat/completions", "http://h/v1#top"):
        assert ClientSettings(endpoint=base, model="m").url == "http://h/v1/chat/completions"
    assert ClientSettings(endpoint="http://h", model="m").url == "http://h/chat/completions"
    with Teacher(truthful) as teacher:
        manifest = ask(teacher, endpoint=f"{teacher.url}/?version=1&key={KEY}")
        assert set(teacher.paths) == {f"/v1/chat/completions?version=1&key={KEY}"}
    assert manifest["settings"]["endpoint"] == f"{teacher.url}/chat/completions"
    refused = pytest.raises(DataError, match=r"/v1/chat/completions does not know this path")
    with Teacher(lambda handler, _, __: send(handler, 404, b"")) as teacher, refused as error:
        ask(teacher, endpoint=f"{teacher.url}?key={KEY}", model="another")
    assert KEY not in str(error.value)
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "endpoint", ["ftp://x", "host:80", f"http://user:{KEY}@host/v1", "http://", "http://[", f"http://h:{KEY}/v1"]
)
def test_invalid_endpoints_are_refused_without_showing_them(endpoint: str) -> None:
    with pytest.raises(ConfigError) as error:
        ClientSettings(endpoint=endpoint, model="m")
    assert KEY not in str(error.value)
    assert KEY not in repr(ClientSettings(endpoint="http://h", model="m", api_key=KEY))


def test_a_killed_run_pays_for_no_answer_twice_and_never_writes_the_key(tmp_path: Path) -> None:
    """SIGKILL at random times; the next run writes every document, and each answer was sent once."""
    count = 120
    compiled = write_compiled(tmp_path / "compiled", count)
    generator = random.Random(3)

    def behaviour(handler: Any, body: dict[str, Any], number: int) -> None:
        time.sleep(0.02)
        truthful(handler, body, number)

    command = [sys.executable, "-m", "acc_megatron", "reason", str(compiled), "--model", "m", "--concurrency", "4"]
    output = b""
    with Teacher(behaviour) as teacher:
        command += ["--endpoint", teacher.url, "--out", str(tmp_path / "out"), "--json"]
        environment = os.environ | {"ACC_API_KEY": KEY}
        for _ in range(3):
            before = len(teacher.answered)
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            while len(teacher.answered) < before + 10 and process.poll() is None:
                time.sleep(0.005)
            time.sleep(generator.random() * 0.1)
            process.send_signal(signal.SIGKILL)
            output += process.communicate()[0]
            assert not (tmp_path / "out").exists()
        done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
        output += done.stdout + done.stderr
        assert done.returncode == 0, output.decode()
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
        assert manifest["documents_out"] == count
        in_flight = sum(number - 1 for number in teacher.asked.values())
        assert len(teacher.asked) == count and in_flight <= 3 * 4  # only what a kill cut off was asked again
        assert manifest["requests"]["requests"] >= sum(teacher.asked.values())  # noted before it is sent
        assert {headers["Authorization"] for headers in teacher.headers} == {f"Bearer {KEY}"}
        assert len({headers["Idempotency-Key"] for headers in teacher.headers}) == count
    assert KEY.encode() not in output
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_the_same_question_in_several_runs_is_sent_once(tmp_path: Path, ask: Any) -> None:
    same = {"question": "Which number? (7)", "answer": "Paris 7", "ground_truth": "Paris 7"}
    compiled = write_compiled(tmp_path / "same", 20, **same)

    def behaviour(handler: Any, body: dict[str, Any], number: int) -> None:
        time.sleep(0.1)
        truthful(handler, body, number)

    with Teacher(behaviour) as teacher:
        assert ask(teacher, compiled)["documents_out"] == 20
        assert list(teacher.asked.values()) == [1]


def test_output_and_cache_cannot_be_where_a_new_compile_would_remove_them(tmp_path: Path, tokenizer: Tokenizer) -> None:
    compiled = write_compiled(tmp_path / "compiled")
    before = sorted(tmp_path.rglob("*"))
    for out, cache in (("compiled", "c"), ("compiled/out", "c"), ("out", "compiled/c"), ("out", "x/../compiled/c")):
        with pytest.raises(DataError, match=r"is inside the input folder .* which the next compile replaces"):
            reason_folder(
                compiled,
                tmp_path / out,
                ReasonSettings(),
                ClientSettings(endpoint="http://127.0.0.1:1", model="m"),
                budget=Budget(),
                cache_path=tmp_path / cache,
                verifier=Verifier(Resources()),
                tokenizer=tokenizer,
            )
    assert sorted(tmp_path.rglob("*")) == before


def test_two_runs_cannot_share_a_cache(tmp_path: Path, ask: Any) -> None:
    from acc_megatron.common.answer_cache import AnswerCache

    with AnswerCache(tmp_path / "cache.sqlite", Budget()), Teacher(truthful) as teacher:
        with pytest.raises(DataError, match="another run"):
            ask(teacher)
        assert not teacher.asked
