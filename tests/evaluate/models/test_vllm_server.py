"""vLLM's command line for a folder, and its server: started, asked, stopped, and failing to start."""

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
from support.commands import ROOT
from support.make_inputs import QWEN_VOCAB_SIZE, make_hf_folder

from acc_megatron.errors import ConfigError, EnvironmentProblem
from acc_megatron.evaluate.models.settings import ModelSettings
from acc_megatron.evaluate.models.vllm_server import serving, vllm_command
from acc_megatron.evaluate.runner import evaluate
from acc_megatron.evaluate.settings import run_from_tree

# config.json of Qwen3-30B-A3B and of its Thinking-2507 successor, as far as the command depends on them
QWEN3 = {"vocab_size": 151_936, "num_attention_heads": 32, "num_key_value_heads": 4, "num_experts": 128,
         "max_position_embeddings": 40_960, "rope_theta": 1_000_000.0}  # fmt: skip
THINKING = QWEN3 | {"max_position_embeddings": 262_144, "rope_theta": 10_000_000}


def tiny_model(folder: Path) -> Path:
    """A random model folder of one layer."""
    return make_hf_folder(folder, num_hidden_layers=1, hidden_size=16, vocab_size=QWEN_VOCAB_SIZE)


def command(folder: Path, config: dict[str, Any], **options: Any) -> dict[str, str]:
    """The command's flags by name; flags without a value have an empty one."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    words = vllm_command(folder, served_name="acc", port=8000, **options)
    assert words[:3] == ["vllm", "serve", str(folder)]
    flags: dict[str, str] = {}
    for word in words[3:]:
        if word.startswith("--"):
            flags[word], last = "", word
        else:
            flags[last] = word
    return flags


def test_the_papers_model_at_128k_on_a_node_of_eight(tmp_path: Path) -> None:
    flags = command(tmp_path, THINKING, gpus=8, window_tokens=131_072)
    assert flags["--max-model-len"] == "131072"
    # four key-value heads go onto four GPUs, two replicas, experts over all eight
    assert (flags["--tensor-parallel-size"], flags["--data-parallel-size"]) == ("4", "2")
    assert "--enable-expert-parallel" in flags
    assert "--hf-overrides" not in flags  # the model has enough positions
    assert flags["--generation-config"] == "vllm"  # only the sampling that the run states
    assert flags["--host"] == "127.0.0.1" and flags["--served-model-name"] == "acc"


def test_a_window_beyond_the_positions_uses_yarn_from_the_trained_length(tmp_path: Path) -> None:
    flags = command(tmp_path, QWEN3, gpus=2, window_tokens=131_072)
    assert json.loads(flags["--hf-overrides"]) == {
        "max_position_embeddings": 131_072,  # vLLM 0.32 does not multiply it by the factor
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
                            "original_max_position_embeddings": 32_768}
    }  # fmt: skip
    # transformers 5 writes the base inside rope_parameters
    nested = {key: value for key, value in QWEN3.items() if key != "rope_theta"}
    nested |= {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6}, "max_position_embeddings": 8192}
    found = json.loads(command(tmp_path, nested, window_tokens=16_384)["--hf-overrides"])["rope_parameters"]
    assert (found["rope_theta"], found["factor"], found["original_max_position_embeddings"]) == (5e6, 2.0, 8192)
    scaled = QWEN3 | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}
    with pytest.raises(ConfigError, match=r"already scales .* by yarn, up to 40960; .* instead of 131072"):
        command(tmp_path, scaled, window_tokens=131_072)


def test_tensor_parallelism_divides_the_heads_and_data_parallelism_uses_the_other_gpus(tmp_path: Path) -> None:
    one = command(tmp_path, THINKING)
    assert (one["--tensor-parallel-size"], one["--data-parallel-size"]) == ("1", "1")
    assert one["--max-model-len"] == "262144" and "--enable-expert-parallel" not in one
    six = command(tmp_path, THINKING, gpus=6)
    assert (six["--tensor-parallel-size"], six["--data-parallel-size"]) == ("2", "3")
    dense = {key: value for key, value in THINKING.items() if key != "num_experts"}
    assert "--enable-expert-parallel" not in command(tmp_path, dense, gpus=4)


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command `vllm` on PATH: a server of the tests that accepts the same command line."""
    path = tmp_path / "bin" / "vllm"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT / "tests"} exec {sys.executable} -m support.model_server "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return path


@pytest.mark.slow
def test_a_served_folder_answers_as_in_transformers_and_its_server_ends_with_the_run(
    tmp_path: Path, vllm: Path
) -> None:
    folder = tiny_model(tmp_path / "tiny")
    models = {"served": {"folder": str(folder), "engine": "vllm", "gpus": 2}, "local": {"folder": str(folder)}}
    walks = {"kind": "graphwalks", "items": 2, "length_tokens": [700], "max_new_tokens": 5}
    run_settings = run_from_tree({"name": "x", "models": models, "benchmarks": {"walks": walks}}, "x")
    lines: list[str] = []
    results = evaluate(run_settings, tmp_path / "out", show=lines.append)
    answers = [item["answers"] for item in results["items"]]
    assert answers[:2] == answers[2:] and answers[0][0]["response"]
    assert "--data-parallel-size 1" in lines[0] and "--tensor-parallel-size 2" in lines[0]
    found = re.search(r"serving in process (\d+)", (tmp_path / "out" / "vllm-served.log").read_text())
    assert found
    with pytest.raises(ProcessLookupError):
        os.kill(int(found[1]), 0)
    # another port but the same checkpoint: nothing is asked again
    again = evaluate(run_settings, tmp_path / "out", show=lines.append)
    assert again["items"] == results["items"] and again["requests"]["requests"] == results["requests"]["requests"]


def runs(process: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("sign", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_server_ends_with_a_run_that_is_killed(tmp_path: Path, vllm: Path, sign: signal.Signals) -> None:
    vllm.write_text("#!/bin/sh\necho serving in process $$\nexec sleep 300\n")  # never ready, so the run waits
    folder = tiny_model(tmp_path / "tiny")
    run = tmp_path / "run.toml"
    run.write_text(
        f'name = "x"\n[models."a/b"]\nfolder = "{folder}"\nengine = "vllm"\n'
        '[benchmarks.walks]\nkind = "graphwalks"\nitems = 1\nlength_tokens = [700]\n'
    )
    command = [sys.executable, "-m", "acc_megatron", "eval", str(run), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    log, end = tmp_path / "out" / "vllm-a%2Fb.log", time.monotonic() + 120
    while not (log.is_file() and (found := re.search(r"process (\d+)\n", log.read_text()))):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(sign)
    process.wait()
    end = time.monotonic() + 20
    while runs(int(found[1])):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_server_that_ends_while_it_is_asked_is_reported_as_the_cause(tmp_path: Path, vllm: Path) -> None:
    folder = tiny_model(tmp_path / "mortal")
    models = {"served": {"folder": str(folder), "engine": "vllm", "tries": 1}}
    walks = {"kind": "graphwalks", "items": 2, "length_tokens": [700], "max_new_tokens": 5}
    run_settings = run_from_tree({"name": "x", "models": models, "benchmarks": {"walks": walks}}, "x")
    with pytest.raises(EnvironmentProblem, match=r"models\.served ended with 3; the end of .*:\n(.*\n)*no such kernel"):
        evaluate(run_settings, tmp_path / "out", show=print)


def test_a_server_that_ends_or_never_becomes_ready_is_an_error_with_the_end_of_its_log(
    tmp_path: Path, vllm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tiny_model(tmp_path / "bad")
    log = tmp_path / "log"
    settings = ModelSettings(folder=str(bad), engine="vllm")
    with (
        pytest.raises(EnvironmentProblem, match=r"ended with 1; the end of .*:\n(.*\n)*this folder cannot be served"),
        serving(settings, name="m", log=log, show=print),
    ):
        pass
    vllm.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    with (
        pytest.raises(EnvironmentProblem, match=r"did not answer within start_seconds 2"),
        serving(ModelSettings(folder=str(bad), engine="vllm", start_seconds=2.0), name="m", log=log, show=print),
    ):
        pass
    assert not runs(int((tmp_path / "pid").read_text()))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentProblem, match="no command vllm"), serving(settings, name="m", log=log, show=print):
        pass
