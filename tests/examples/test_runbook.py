"""The runbook: its commands are ones that the command line knows, over files that exist."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, acc

RUNBOOK = (ROOT / "examples" / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", RUNBOOK, re.S) for line in block.strip().splitlines()]


def test_every_step_says_what_to_expect_or_what_was_not_tested() -> None:
    steps = re.split(r"^## \d\. ", RUNBOOK, flags=re.M)[1:]
    assert len(steps) == 8
    for step in steps:
        assert "Expect" in step or "Nothing needs watching" in step, step.splitlines()[0]


@pytest.mark.parametrize("command", sorted({" ".join(c.split()[:3]) for c in COMMANDS if c.startswith("acc-megatron")}))
def test_every_verb_of_the_runbook_is_known(command: str) -> None:
    words = [word for word in command.split()[1:] if re.fullmatch(r"[a-z]+", word)]
    done = acc(*words, "--help")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("acc-megatron")])
def test_every_option_and_file_of_the_runbook_is_known(command: str) -> None:
    words = shlex.split(command)[1:]
    verb = words[: 2 if words[0] == "launch" else 1]
    told = acc(*verb, "--help").stdout
    for option in (word for word in words if word.startswith("--")):
        assert option in told, f"{' '.join(verb)} has no {option}"
    for path in (word for word in words if word.startswith("examples/")):
        assert (ROOT / path).is_file(), path


def test_the_settings_named_in_the_runbook_exist() -> None:
    from acc_megatron.launch.experiment import load_experiment

    overrides = ['train.overrides=["train.max_steps=5"]', 'network.debug="INFO"', 'slurm.exclude="n1"']
    loaded = load_experiment(ROOT / "examples" / "experiment.toml", overrides)
    assert loaded.stages == ("compile", "convert", "train", "export", "eval")
    assert loaded.config is not None and loaded.config.train.max_steps == 5


@pytest.mark.slow
def test_the_plan_of_the_runbook_fits() -> None:
    command = next(c for c in COMMANDS if "plan" in c and "--search" not in c)
    words = [sys.executable, "-m", "acc_megatron", *shlex.split(command)[1:], "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["world_size"] == 64
    assert max(stage["memory_bytes"]["total"] for stage in plan["stages"]) < 0.95 * 80e9


def test_the_links_of_the_runbook_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", RUNBOOK):
        assert (ROOT / "examples" / Path(target)).exists(), target
