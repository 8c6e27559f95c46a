"""The runbook: its commands, options, settings, files and links exist."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from support.commands import ROOT, acc

RUNBOOK = (ROOT / "docs" / "first_run.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", RUNBOOK, re.S) for line in block.strip().splitlines()]


def test_every_step_says_what_to_expect() -> None:
    steps = re.split(r"^## \d\. ", RUNBOOK, flags=re.M)[1:]
    assert len(steps) == 8
    for step in steps:
        assert "Expect" in step or "needs no supervision" in step, step.splitlines()[0]


@pytest.mark.parametrize("command", sorted({" ".join(c.split()[:3]) for c in COMMANDS if c.startswith("acc-megatron")}))
def test_every_command_of_the_runbook_exists(command: str) -> None:
    words = [word for word in command.split()[1:] if re.fullmatch(r"[a-z]+", word)]
    done = acc(*words, "--help")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("acc-megatron")])
def test_every_option_and_file_of_the_runbook_exists(command: str) -> None:
    words = shlex.split(command)[1:]
    verb = words[: 2 if words[0] == "launch" else 1]
    help_text = acc(*verb, "--help").stdout
    for option in (word for word in words if word.startswith("--")):
        assert option in help_text, f"{' '.join(verb)} has no {option}"
    for path in (word for word in words if word.startswith("examples/")):
        assert (ROOT / path).is_file(), path


def test_the_settings_named_in_the_runbook_exist() -> None:
    from acc_megatron.launch.load_experiment import load_experiment

    overrides = ['train.overrides=["train.max_steps=5"]', 'network.debug="INFO"', 'slurm.exclude="n1"']
    loaded = load_experiment(ROOT / "examples" / "experiment.toml", overrides)
    assert loaded.jobs == ("compile", "convert", "train", "export", "eval")
    assert loaded.config is not None and loaded.config.train.max_steps == 5


@pytest.mark.slow
def test_the_layout_of_the_runbook_fits_into_memory() -> None:
    command = next(c for c in COMMANDS if "plan" in c and "--search" not in c)
    words = [sys.executable, "-m", "acc_megatron", *shlex.split(command)[1:], "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["world_size"] == 64
    assert max(stage["memory_bytes"]["total"] for stage in plan["stages"]) < 0.95 * 80e9
