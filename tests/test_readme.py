"""Runs the commands and examples of the README and the manual, in order, on the trajectories of the quickstart."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.commands import ROOT, acc, run_command
from support.doc_blocks import blocks
from support.make_inputs import QWEN_VOCAB_SIZE, TINY_MODEL

from acc_megatron.quickstart import summary_text

# in the order in which a reader needs them: later pages use the folders that earlier ones made
PAGES = (
    "docs/install.md",
    "docs/quickstart.md",
    "docs/data.md",
    "docs/arms.md",
    "docs/convert.md",
    "docs/scale.md",
    "docs/dataset_format.md",
    "README.md",
    "docs/training.md",
    "docs/evaluation.md",
    "docs/benchmarks.md",
)
BLOCKS = [block for page in PAGES for block in blocks(page) if block.language in ("sh", "python") and not block.reason]
# what the fixture runs, what runs this test, and what the environment of this test has done
NOT_AGAIN = ("make quickstart", "make test", "make .venv", "make docs")


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory, make_hf_folder: Callable[..., Path]) -> Iterator[Path]:
    """A folder in which a user stands: the quickstart's run and trajectories, a model, the published files' like."""
    here = tmp_path_factory.mktemp("tour")
    done = acc("quickstart", "--out", here / "runs" / "quickstart", "--json", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    (here / "quickstart.txt").write_text(done.stderr)
    (here / "quickstart.json").write_text(done.stdout)
    shutil.copytree(here / "runs" / "quickstart" / "trajectories", here / "my_trajectories")
    make_hf_folder(here / "Qwen3-30B-A3B-Thinking-2507", vocab_size=QWEN_VOCAB_SIZE, max_position_embeddings=16_384)
    for agent in ("search", "swe", "sql"):
        row = {
            "dialogs": [
                {"role": "user", "content": f"Please reason based on the following documents. {'page ' * 50}"},
                {"role": "assistant", "content": "<think>\nIt is on the page.\n</think>\n\nYes."},
            ],
            "ground_truth_answer": "Yes.",
            "context_length": "100k",
        }
        (here / f"{agent}_agent_data.jsonl").write_text(json.dumps(row) + "\n")
    chat = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Mara Lind."}]}
    (here / "chats.jsonl").write_text(f"{json.dumps(chat)}\n" * 8)
    recipe = (ROOT / "examples" / "tiny_cpu.toml").read_text()
    for key, value in (TINY_MODEL | {"vocab_size": QWEN_VOCAB_SIZE, "max_position_embeddings": 16_384}).items():
        recipe = re.sub(rf"^{key} = .*$", f"{key} = {value}", recipe, flags=re.M)
    recipe = recipe.replace("runs/quickstart/run", "runs/qwen3_30b_a3b_128k").replace(
        "[train]", "[train]\ninit_from = 'checkpoints/qwen3_30b_a3b'\nprecision = 'bfloat16'"
    )
    (here / "examples").mkdir()
    (here / "examples" / "qwen3_30b_a3b_128k_h100.toml").write_text(recipe)
    yield here
    shutil.rmtree(here)


def test_make_runs_the_quickstart_that_the_tour_runs() -> None:
    dry = run_command(["make", "-n", "quickstart"]).stdout
    assert "acc-megatron quickstart --out runs/quickstart" in dry
    assert "-m pytest" in run_command(["make", "-n", "test"]).stdout


@pytest.mark.slow
@pytest.mark.distributed
def test_the_quickstart_shows_a_falling_loss_and_writes_what_it_promises(tour: Path) -> None:
    out = tour / "runs" / "quickstart"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["loss_last"] < 0.8 * summary["loss_first"]
    assert summary["world_size"] == 2 and "CP2" in summary["layout"] and "EP2" in summary["layout"]
    assert summary["documents"] > 30 and 0 < summary["supervised_tokens"] < summary["tokens"]
    assert (Path(summary["export_dir"]) / "model.safetensors").is_file()
    assert set(summary["eval"]) == {"graphwalks", "mrcr"}
    steps = [json.loads(line) for line in (out / "run" / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == list(range(1, summary["steps"] + 1)), "the resume did no step twice"
    assert "resumed from" in (out / "quickstart.log").read_text()
    assert "<svg" in (out / "report.html").read_text()
    table = (tour / "quickstart.txt").read_text()
    assert "train (resumed)" in table and "Next: acc-megatron inspect" in table
    printed = json.loads((tour / "quickstart.json").read_text())
    assert printed == summary | {"page": str(out / "report.html")}
    assert f"{summary['steps']} steps on 2 processes" in summary_text(printed, out)
    assert "\n    step     1 of " in table, "training is shown while it runs"


@pytest.mark.slow
@pytest.mark.distributed
def test_every_command_of_the_readme_and_the_docs_runs(tour: Path) -> None:
    # two processes on this machine replace 8 nodes of 8, and the recipe has a tiny model
    smaller = {
        "--nnodes 8 --nproc-per-node 8": "--nnodes 1 --nproc-per-node 2",
        "$HEAD:29500": "127.0.0.1:0",
        "--gpus 64": "--gpus 2",
    }
    launchers = {
        "acc-megatron": [sys.executable, "-m", "acc_megatron"],
        "torchrun": [sys.executable, "-m", "torch.distributed.run"],
    }
    ran = 0
    for block in BLOCKS:
        if block.language == "python":
            _run([sys.executable, "-c", block.text], tour, f"{block.page}:{block.line}")
            ran += 1
            continue
        for command in block.commands:
            if command in NOT_AGAIN:
                continue
            for long, short in smaller.items():
                command = command.replace(long, short)
            name, *arguments = shlex.split(command)
            if name == "torchrun":
                arguments.append("train.max_steps=1")
            _run([*launchers[name], *arguments], tour, command)
            ran += 1
    assert ran >= 30


def _run(command: list[str], folder: Path, what: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{what}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
