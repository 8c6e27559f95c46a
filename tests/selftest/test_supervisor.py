"""One check that fails, hangs or crashes on one rank is reported with that rank, and the checks after it still run."""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch.distributed as dist
from support import toy_worker

from acc_megatron.selftest import supervisor
from acc_megatron.selftest.check import Outcome, Result, combine
from acc_megatron.selftest.supervisor import Supervisor
from acc_megatron.selftest.worker import Job

COMMAND = (sys.executable, toy_worker.__file__)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(supervisor, "START_SECONDS", 20)


def job(folder: Path, world: int, rank: int = 0) -> Job:
    (folder / "outcomes").mkdir(exist_ok=True)
    return Job(rank, world, rank, str(folder), True, "127.0.0.1", 0, "toy")


def run(folder: Path, names: Sequence[str], world: int = 2) -> list[Result]:
    checks = [toy_worker.TOYS[name] for name in names]
    return list(Supervisor(job(folder, world), world, dist.HashStore(), COMMAND).run(checks))


def test_checks_that_pass_share_their_processes_and_figures_are_the_largest_of_all_ranks(tmp_path: Path) -> None:
    first, skipped, second = run(tmp_path, ["pid", "skip", "pid"])
    assert [result.state for result in (first, skipped, second)] == ["PASS", "SKIP", "PASS"]
    assert first.figures == second.figures and first.figures["rank"] == 1
    assert skipped.text == "not here"


@pytest.mark.parametrize(
    "name, text",
    [
        ("wrong", "gradient differs by 1.0e+00"),
        ("bug", "RuntimeError: CUDA error: an illegal memory access was encountered"),
        ("die", "the process ended with signal SIGSEGV: check die"),
    ],
)
def test_a_failure_of_one_rank_names_that_rank_and_the_next_check_runs_in_new_processes(
    name: str, text: str, tmp_path: Path
) -> None:
    before, failed, after = run(tmp_path, ["pid", name, "pid"])
    assert (failed.state, failed.rank, failed.advice) == ("FAIL", 1, "read the log")
    assert failed.text.startswith(text) and failed.text.endswith("(also failed or stopped: rank 0)")
    assert after.state == "PASS" and after.figures["process"] != before.figures["process"]


def test_a_hang_ends_at_the_time_limit_of_the_check(tmp_path: Path) -> None:
    _, failed, after = run(tmp_path, ["pid", "hang", "pid"])
    assert failed.state == "FAIL" and failed.text.startswith("did not end within 1 s")
    assert after.state == "PASS"


def test_supervisors_of_several_nodes_agree_on_every_result(tmp_path: Path) -> None:
    store, results = dist.HashStore(), {}
    checks = [toy_worker.TOYS[name] for name in ("pid", "wrong", "pid")]

    def node(rank: int) -> None:
        results[rank] = list(Supervisor(job(tmp_path, 2, rank), 1, store, COMMAND).run(checks))

    threads = [threading.Thread(target=node, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [(r.state, r.rank, r.text, r.figures) for r in results[0]] == [
        (r.state, r.rank, r.text, r.figures) for r in results[1]
    ]
    assert [result.state for result in results[0]] == ["PASS", "FAIL", "PASS"]


def test_the_rank_whose_process_ended_explains_a_failure_that_another_rank_noticed_first() -> None:
    noticed = Outcome(state="FAIL", text="connection closed by peer", cause="error", time=1.0)
    died = Outcome(state="FAIL", text="the process ended with signal SIGKILL", cause="process ended", time=2.0)
    stopped = Outcome(state="FAIL", text="stopped because another rank failed", cause="stopped", time=0.5)
    result = combine(toy_worker.TOYS["pid"], [noticed, stopped, died], 1.0)
    assert result.rank == 2 and "SIGKILL" in result.text


def test_a_check_that_only_some_ranks_skip_has_failed() -> None:
    outcomes = [Outcome(state="PASS"), Outcome(state="SKIP", text="no GPU")]
    result = combine(toy_worker.TOYS["pid"], outcomes, 1.0)
    assert (result.state, result.rank) == ("FAIL", 1) and "no GPU" in result.text
