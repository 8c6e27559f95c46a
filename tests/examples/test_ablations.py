"""The script of the ablations makes every arm from one folder of trajectories."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import ROOT

ARMS = ["acc", "no-distractors", "no-shuffle", "search-only", "swe-only", "sql-only", "masked-30", "agent-sft"]
BASE = {"distractors": True, "shuffle": True, "arm": "acc", "mask_observations": 0.0, "agent": "auto"}
CHANGES = {
    "no-distractors": {"distractors": False},
    "no-shuffle": {"shuffle": False},
    "search-only": {"agent": "search"},
    "swe-only": {"agent": "swe"},
    "sql-only": {"agent": "sql"},
    "masked-30": {"mask_observations": 0.3},
    "agent-sft": {"arm": "agent-sft"},
}


def script(*arguments: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    variables = {"PATH": path, "ACC": f"{sys.executable} -m acc_megatron", "OMP_NUM_THREADS": "1"} | environment
    command = ["bash", str(ROOT / "examples" / "ablations.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=600, check=False)


@pytest.mark.slow
def test_all_arms_are_made_from_the_same_trajectories_and_a_second_call_repeats_nothing(tmp_path: Path) -> None:
    for name in ("sql", "swe", "search"):
        agent = ROOT / "examples" / "agents" / f"{name}_agent.py"
        command = [sys.executable, agent, "--out", tmp_path / "runs", "--count", "3", "--length-tokens", "1500"]
        subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=120)
    (tmp_path / "runs" / "sql" / "db").rename(tmp_path / "databases")
    resources = str(tmp_path / "databases")
    done = script(tmp_path / "runs", tmp_path / "out", BUDGET="8192", FILL="search=4000", RESOURCES=resources)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split()[0] for line in done.stdout.splitlines()] == ARMS
    ids = {}
    for arm in ARMS:
        manifest = json.loads((tmp_path / "out" / arm / "triples" / "manifest.json").read_bytes())
        assert {key: manifest["settings"][key] for key in BASE} == BASE | CHANGES.get(arm, {}), arm
        rows = (tmp_path / "out" / arm / "triples" / "triples.jsonl").read_text().splitlines()
        ids[arm] = [json.loads(row)["id"] for row in rows]
        dataset = json.loads((tmp_path / "out" / arm / "dataset" / "manifest.json").read_bytes())
        assert dataset["documents_out"] == len(rows) > 0, arm
    assert ids["no-distractors"] == ids["no-shuffle"] == ids["masked-30"] == ids["agent-sft"] == ids["acc"]
    assert sorted(ids["search-only"] + ids["swe-only"] + ids["sql-only"]) == sorted(ids["acc"])
    again = script(tmp_path / "runs", tmp_path / "out", ARMS="acc no-shuffle")
    assert again.returncode == 0 and "documents in" not in again.stderr


def test_wrong_arguments_print_the_usage(tmp_path: Path) -> None:
    assert script(tmp_path).returncode == 2
    assert "TRAJECTORIES OUT" in script(tmp_path).stderr
    unknown = script(tmp_path, tmp_path / "out", ARMS="acc-prime")
    assert unknown.returncode == 2 and "unknown arm acc-prime" in unknown.stderr
