"""What many tests share: real small inputs, and real processes with a time limit that leave none behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests over real trajectories are skipped where these are absent."""
    absent = pytest.mark.skip(reason=f"{SHARED_DATA} is absent")
    for item in items:
        if item.get_closest_marker("data") and not SHARED_DATA.is_dir():
            item.add_marker(absent)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real trajectories."""
    return SHARED_DATA


def run_command(command: list[str], *, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process group of its own, which is killed whole when time is up."""
    full = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"} | environment
    process = subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=full, start_new_session=True, cwd=ROOT
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{' '.join(command)} took over {timeout} s:\n{err[-4000:]}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def acc(*arguments: str | Path, processes: int = 1, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run `acc-megatron` as a user would, under torchrun when there are several processes."""
    launcher: list[str] = []
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", port]
    return run_command([sys.executable, *launcher, "-m", "acc_megatron", *map(str, arguments)], timeout=timeout)


def good(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object that a successful `--json` command printed."""
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def write_triples(path: Path, lengths_words: list[int], *, answer_words: int = 12, seed: int = 0) -> Path:
    """Triples of random words, one evidence piece each, with long contexts and short answers at their end."""
    rng = np.random.default_rng(seed)
    words = ["table", "row", "value", "north", "river", "of", "the", "seven", "blue", "index", "query", "file"]

    def text(count: int) -> str:
        return " ".join(rng.choice(words, count))

    with path.open("w", encoding="utf-8") as file:
        for number, length in enumerate(lengths_words):
            row = {
                "id": f"doc-{number}",
                "agent": ("search", "swe", "sql")[number % 3],
                "question": f"which {text(3)}?",
                "context": [{"id": "a", "title": "page", "text": text(length), "kind": "evidence"}],
                "reasoning": text(answer_words),
                "answer": text(3),
            }
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six documents of uneven length in a dataset folder; packed into rows of 512 tokens."""
    from acc_megatron.data_tools.convert import ConvertSettings, convert

    folder = tmp_path_factory.mktemp("dataset")
    triples = write_triples(folder / "triples.jsonl", [340, 60, 260, 90, 20, 160])
    convert([triples], folder / "dataset", ConvertSettings())
    return folder / "dataset"


TINY_MODEL = {
    "vocab_size": 151_936,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "max_position_embeddings": 1024,
}


@pytest.fixture(scope="session")
def make_hf_folder() -> Callable[..., Path]:
    """Writes a random Qwen3MoeForCausalLM folder as transformers does; norms and router are random too."""

    def make(path: Path, *, seed: int = 0, **changes: Any) -> Path:
        import torch
        from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

        settings = TINY_MODEL | {"intermediate_size": 64, "norm_topk_prob": True, "rope_theta": 1e6} | changes
        torch.manual_seed(seed)
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**settings))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.normal_(1.0, 0.2)
                elif name.endswith("mlp.gate.weight"):
                    parameter.normal_(0.0, 0.5)
        model.save_pretrained(path)
        return path

    return make


@pytest.fixture(scope="session")
def imported(make_hf_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint imported from a random Hugging Face model: the same initial weights for every layout."""
    folder = tmp_path_factory.mktemp("imported")
    hf = make_hf_folder(folder / "hf")
    good(acc("import", hf, "--out", folder / "checkpoint", "--precision", "float32", "--json"))
    return folder / "checkpoint"


@pytest.fixture(scope="session")
def recipe(dataset: Path, imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe over `dataset` from `imported`, with plain SGD: Adam would hide a wrong gradient scale."""
    lines = ["name = 'test'", "[model]", *(f"{key} = {value}" for key, value in TINY_MODEL.items())]
    lines += ["[data]", f"path = '{dataset}'", "seq_length_tokens = 512"]
    lines += ["[optimizer]", "kind = 'sgd'", "learning_rate = 0.3", "min_learning_rate = 0.3", "clip_grad_norm = 0.0"]
    lines += ["weight_decay = 0.0", "[train]", "run_dir = 'unset'", f"init_from = '{imported}'"]
    lines += ["global_batch_rows = 2", "epochs = 3", "process_timeout_seconds = 120"]
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text("\n".join(lines) + "\n")
    return path
