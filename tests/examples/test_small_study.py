"""The small study: its worlds and trajectories, its scores, and its smoke version from start to end."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.commands import ROOT, acc, good, run_command

STUDY = ROOT / "examples" / "small_study"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the study by its name, and removes it afterwards."""
    monkeypatch.syspath_prepend(str(STUDY))
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return __import__(name)

    yield load
    for name in set(sys.modules) - before:
        if str(STUDY) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_trajectory_lists_every_page_once_and_follows_the_roads_of_its_world(study: Any) -> None:
    draw_trajectory = study("trajectories").draw_trajectory
    rng = random.Random(3)
    for num_pages, num_hops in ((4, 3), (8, 1), (33, 2), (48, 3)):
        run = draw_trajectory(rng, num_pages, num_hops)
        outputs = [message["content"] for message in run["messages"] if message["role"] == "tool"]
        listed = [line for text in outputs[::2] for line in text.splitlines() if line.startswith("road")]
        assert len(listed) == len(set(listed)) == num_pages
        roads = dict(line.split()[1:] for line in listed)
        assert len(set(roads.values())) == num_pages
        number, _, _, start = run["question"].split()
        assert int(number) == num_hops
        town, path = start, []
        for _ in range(num_hops):
            path.append(f"road {town} {roads[town]}")
            town = roads[town]
        assert outputs[1::2] == path and run["ground_truth"] == f"at {town}"
        assert "\n".join(path) in run["messages"][-1]["content"]


def test_two_random_worlds_share_a_road_no_more_often_than_chance(study: Any) -> None:
    draw_world = study("world").draw_world
    rng = random.Random(5)
    first = draw_world(rng, 48)
    agree = [world.roads.get(town) == end for world in (draw_world(rng, 48) for _ in range(400))
             for town, end in first.roads.items() if town in world.roads]  # fmt: skip
    # each road of a town ends in one of the 63 other towns
    assert abs(np.mean(agree) - 1 / 63) < 4 * np.sqrt(1 / 63 / len(agree))


def test_every_word_and_fixed_phrase_is_one_token(study: Any, tmp_path: Path) -> None:
    study("tokenizer").write_tokenizer(tmp_path / "tokenizer")
    runs = tmp_path / "runs.jsonl"
    run = study("trajectories").draw_trajectory(random.Random(0), 12, 2)
    runs.write_text(json.dumps(run) + "\n")
    counts = {}
    for arm in ("acc", "agent-sft"):
        options = ("--arm", arm, "--tokenizer", tmp_path / "tokenizer", "--json")
        counts[arm] = good(acc("compile", runs, "--out", tmp_path / arm, *options))
    # per page: "[Document", number, "]", page, newline, page, "road", two towns. Rest of the prompt: user and newline
    # after a control token, 5 for the question, 5 between the turns, a final newline. Supervised: two roads, the answer
    # and the tokens around them
    assert counts["acc"]["tokens"] == 12 * 9 + (3 + 5 + 5 + 1) + 12
    assert counts["acc"]["supervised_tokens"] == 12
    assert counts["agent-sft"]["documents_out"] == 1 and counts["agent-sft"]["supervised_tokens"] > 12


def _question(study: Any) -> Any:
    # id 9 is "road"; the prompt has 5 tokens, then follow two roads, an answer and the end of the turn
    ids = np.array([1, 2, 3, 4, 5, 6, 9, 20, 21, 9, 21, 22, 7, 22, 8], np.int32)
    mask = (np.arange(len(ids)) >= 5).astype(np.uint8)
    return study("evaluate").Question("x", 8, 2, [0.1, 0.9], ids, mask)


@pytest.mark.parametrize(
    ("wrong_at", "greedy", "starts", "lookups", "answer"),
    [
        (None, True, [True, True], [True, True], True),
        (3, True, [True, True], [True, True], True),  # in the prompt
        (7, False, [False, True], [True, True], True),
        (10, False, [True, False], [True, True], True),
        (8, False, [True, True], [False, True], True),
        (11, False, [True, True], [True, False], True),
        (13, False, [True, True], [True, True], False),
        (14, False, [True, True], [True, True], True),  # continues instead of ending
    ],
)
def test_one_wrong_token_changes_only_the_scores_that_include_it(
    study: Any, wrong_at: int | None, greedy: bool, starts: list[bool], lookups: list[bool], answer: bool
) -> None:
    torch = pytest.importorskip("torch")
    question = _question(study)

    def model(ids: Any) -> SimpleNamespace:
        """Predicts every next token correctly except one."""
        following = torch.roll(ids, -1, dims=1)
        if wrong_at is not None:
            following[:, wrong_at - 1] = 30
        return SimpleNamespace(logits=torch.nn.functional.one_hot(following, 32).float())

    [row] = study("evaluate").score(model, [question], 9)
    found = [[0.1, lookups[0]], [0.9, lookups[1]]]
    expected = {"greedy": greedy, "starts": starts, "lookups": found, "answer": answer}
    assert row == {"pages": 8, "hops": 2} | expected


def test_measures_are_shares_and_deviations_are_computed_over_seeds(study: Any) -> None:
    summary = study("summary")
    same = {"pages": 8, "greedy": False}
    row = same | {"hops": 1, "starts": [False], "lookups": [[0.99, True]], "answer": True}
    far = same | {"hops": 3, "starts": [False, True, False], "lookups": [[0.0, True], [0.3, False], [0.8, False]]}
    rows = [row, far | {"answer": True}, row | {"answer": False}, row | {"greedy": True}]
    cell = summary.measures({"with_context": rows, "without_context": rows[1:2]})
    expected = {"retrieval/8": 2 / 3, "multi-hop/8": 0, "greedy/8": 1 / 4, "next/8": 1 / 2, "look-up/8": 4 / 6,
                "no context": 1 / 3, "depth/8/first": 1, "depth/8/second": 0, "depth/8/last": 3 / 4}  # fmt: skip
    assert cell == pytest.approx(expected)
    assert summary.over_seeds([{"a": 1.0}, {"a": 2.0}, {"a": 6.0}])["a"] == pytest.approx((3, 7**0.5))


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until `path` exists; fail if the process ends or ten minutes pass first."""
    end = time.monotonic() + 600
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, f"{path} was not written"
        time.sleep(0.05)


def test_a_folder_with_results_of_other_settings_is_an_error(tmp_path: Path, study: Any) -> None:
    settings = study("settings")
    study("run")._check_settings(tmp_path, settings.SMOKE)
    study("run")._check_settings(tmp_path, settings.SMOKE)
    with pytest.raises(SystemExit, match=r"contains a study with other settings, see .*settings\.json"):
        study("run")._check_settings(tmp_path, settings.FULL)


@pytest.mark.long
@pytest.mark.slow
def test_the_smoke_version_resumes_after_a_kill_with_equal_tokens_per_arm_and_a_second_call_repeats_nothing(
    tmp_path: Path,
) -> None:
    pytest.importorskip("transformers")
    command = [sys.executable, str(STUDY / "run.py"), "--smoke", "--out", str(tmp_path)]
    base = tmp_path / "base" / "few" / "train.json"
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(base, killed)
        wait_for(tmp_path / "arms" / "acc" / "seed0" / "run", killed)  # an arm is being trained
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    kept = base.read_bytes()
    done = run_command(command, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "results.json").read_bytes())
    assert {row["arm"] for row in results["trained"]} == {"acc", "agent-sft"}
    assert len({row["tokens"] for row in results["trained"]}) == 1
    assert all(row["steps"] == 5 for row in results["trained"])
    for rows in (results["models"]["base"], results["models"]["acc/seed0"]):
        assert {"retrieval/6", "multi-hop/12", "look-up/12", "greedy/6", "no context", "depth/6/first"} <= set(rows)
    assert "| agent-sft |" in done.stdout and (tmp_path / "figure.svg").read_text().startswith("<?xml")
    figure = (tmp_path / "figure.svg").read_bytes()
    assert (
        base.read_bytes() == kept and "few/train" not in done.stderr
    )  # not run again: it contains the seconds of the first run
    assert "seed0/train" in done.stderr and "base/evaluate" in done.stderr
    again = run_command(command, timeout=60)
    assert again.returncode == 0 and again.stderr.count(" s\n") == 0
    assert again.stdout == done.stdout and (tmp_path / "figure.svg").read_bytes() == figure


def test_a_step_that_a_restart_repeated_is_counted_once(tmp_path: Path, study: Any) -> None:
    lines = [{"step": step, "tokens": 2048, "supervised_tokens": step} for step in (1, 2, 3, 3, 4)]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert study("arms").count_tokens(tmp_path) == {"tokens": 4 * 2048, "supervised_tokens": 10}


def test_a_command_runs_once_and_its_failure_names_its_log(tmp_path: Path, study: Any) -> None:
    run_once = study("pipeline").run_once
    script = "import json, pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text() + 'x'); print('{}')"
    calls = tmp_path / "calls"
    calls.write_text("")
    command = [sys.executable, "-S", "-c", script, str(calls)]
    first = run_once(tmp_path / "out" / "step.json", command)
    assert first.keys() == {"seconds"} and run_once(tmp_path / "out" / "step.json", command) == first
    assert calls.read_text() == "x"
    with pytest.raises(SystemExit, match=r"(?s)exit code 3; the end of .*fails\.log:\nlast words"):
        run_once(
            tmp_path / "fails.json",
            [sys.executable, "-S", "-c", "import sys; sys.stderr.write('last words'); sys.exit(3)"],
        )
    assert not (tmp_path / "fails.json").exists()
