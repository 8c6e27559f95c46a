"""Missing packages: one error line with a command that works, from every verb, and a doctor that always runs."""

import json
import os
import re
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from support.commands import ROOT, run_command

from acc_megatron import optional

HIDE = Path(__file__).parent / "support" / "hide_packages"
RECIPE = str(ROOT / "examples" / "tiny_cpu.toml")
ATTENTION = ["analyze", "attention", "--before", "x", "--task", "a=x", "--out", "out"]
TRAIN = ["train", RECIPE, "parallel.context=1", "parallel.expert=1"]
# the verbs that need torch, with arguments that reach its import
TORCH_VERBS = [
    TRAIN,
    ["plan", RECIPE],
    ["import", "x", "--out", "out"],
    ["export", "x", "--out", "out"],
    ["bench", "step", RECIPE],
]
EXTRAS = {
    "ray": "ray",
    "gigatoken": "gigatoken==0.10.0",
    "datasketch": "'datasketch>=2'",
    "umap": "umap-learn",
    "lm_eval": "lm-eval==0.4.13 langdetect immutabledict",
    "wandb": "wandb",
    "mlflow": "mlflow",
}


def without(packages: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `acc-megatron` where these packages cannot be imported, also not by its child processes."""
    command = [sys.executable, "-m", "acc_megatron", *arguments]
    return run_command(command, HIDDEN_PACKAGES=packages, PYTHONPATH=str(HIDE), timeout=600)


def check_one_line(done: subprocess.CompletedProcess[str], package: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ") and f"needs the package {package}" in line, line
    assert f"run {optional.install_command(package)}" in line, line


@pytest.mark.distributed
@pytest.mark.parametrize("arguments", TORCH_VERBS, ids=lambda words: words[0])
def test_without_torch_a_verb_that_needs_it_ends_in_one_line(arguments: list[str]) -> None:
    check_one_line(without("torch", *arguments), "torch")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [*TORCH_VERBS[1:], ATTENTION], ids=lambda words: words[0])
def test_without_megatron_core_a_verb_that_needs_it_ends_in_one_line(arguments: list[str]) -> None:
    done = without("megatron", *arguments)
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_without_megatron_core_train_ends_in_one_line() -> None:
    done = without("megatron", *TRAIN)
    assert done.returncode == 2 and "needs the package megatron-core" in done.stderr, done.stderr
    assert f"run {optional.install_command('megatron')}" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("package", ["typer", "pyarrow", "numpy"])
def test_without_a_base_package_convert_ends_in_one_line(package: str) -> None:
    check_one_line(without(package, "convert", "x", "--out", "out"), package)


def test_the_doctor_runs_without_any_package() -> None:
    done = without("rich numpy psutil packaging torch megatron triton transformer_engine pyarrow tiktoken", "doctor")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "cannot run: python packages" in done.stdout and "cannot run: machine" in done.stdout
    done = without("typer torch megatron triton transformer_engine", "doctor")
    assert "cannot run: torch" in done.stdout and "needs the package typer" in done.stderr


def test_launch_needs_no_package_of_training() -> None:
    """.venv-launch contains nemo-run and the packages of the command line only."""
    experiment = str(ROOT / "examples" / "experiment.toml")
    options = ["train.nodes=1", "train.processes_per_node=64", "--dry-run", "--json"]
    packages = "torch megatron numpy pyarrow tokenizers tiktoken httpx2 transformers safetensors matplotlib jinja2"
    done = without(packages, "launch", "local", experiment, *options)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["commands"]) == ["compile", "convert", "train", "export", "eval"]


def test_a_missing_module_of_ours_keeps_its_traceback() -> None:
    assert optional.missing_module(ModuleNotFoundError(name="acc_megatron.nothing")) is None


def test_a_missing_dependency_of_a_dependency_leads_to_pip_check() -> None:
    error = optional.missing_module(ModuleNotFoundError(name="some_dependency"))
    assert "some_dependency" in str(error) and f"run {sys.executable} -m pip check" in str(error)


@pytest.mark.parametrize("module", EXTRAS)
def test_the_command_for_an_extra_installs_all_its_packages(module: str) -> None:
    assert optional.install_command(module) == f"{sys.executable} -m pip install {EXTRAS[module]}"


def test_the_vocabulary_is_installed_without_dependencies_in_the_pinned_version() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert optional.VOCABULARY in pins
    assert optional.install_command("dashscope").endswith(f"pip install --no-deps {optional.VOCABULARY}")


def test_on_python_311_megatron_core_is_installed_despite_its_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    line = 'megatron-core==0.19.2; python_version >= "3.12"'
    monkeypatch.setattr(optional.metadata, "requires", lambda name: [line])
    for version, flags in (((3, 11), "--no-deps --ignore-requires-python "), ((3, 12), "")):
        monkeypatch.setattr(sys, "version_info", version)
        assert optional.install_command("megatron").endswith(f"pip install {flags}megatron-core==0.19.2")


def test_in_a_checkout_launching_has_a_make_target() -> None:
    command = optional.install_command("nemo_run")
    assert command == f"make -C {ROOT} .venv-launch"
    assert re.search(r"^\.venv-launch:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.slow
def test_every_advised_command_works_in_an_empty_environment(tmp_path: Path) -> None:
    """Each is resolved by pip, and the one for the vocabulary is run."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    wheel = [python, "-m", "pip", "install", "-q", "--no-deps", str(ROOT)]
    assert subprocess.run(wheel, timeout=600).returncode == 0
    modules = ["torch", "megatron", "triton", "nemo_run", "dashscope", *EXTRAS]
    code = "import json, sys; from acc_megatron.optional import install_command\n"
    code += "print(json.dumps([install_command(name) for name in sys.argv[1:]]))"
    done = subprocess.run([python, "-c", code, *modules], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for module, command in zip(modules, json.loads(done.stdout), strict=True):
        words = shlex.split(command)
        assert words[0] == str(python), command
        tried = subprocess.run(
            [*words, "--dry-run", "-q"], capture_output=True, text=True, env=environment, timeout=900
        )
        assert tried.returncode == 0, f"{module}: {command}\n{tried.stderr}"
    vocabulary = json.loads(done.stdout)[modules.index("dashscope")]
    assert subprocess.run([*shlex.split(vocabulary), "-q"], timeout=600).returncode == 0
