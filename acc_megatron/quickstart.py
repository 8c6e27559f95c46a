"""The whole pipeline on a tiny model: each step runs the commands that a user would type, in processes of their own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from acc_megatron.common.atomic_files import write_json
from acc_megatron.common.network_ports import free_port
from acc_megatron.errors import EnvironmentProblem, JobFailed
from acc_megatron.observe.metrics import read_steps
from acc_megatron.observe.report import write_report

RECIPES = {"moe": "tiny_cpu.toml", "dense": "tiny_dense_cpu.toml"}
AGENTS = ("sql", "swe", "search")
NUM_PROCESSES = 2
LENGTH_TOKENS = 2048  # target of an agent; documents have 2,000 to 6,000 tokens
JOB_TIMEOUT_SECONDS = 900


class Pipeline:
    """Runs jobs in order, records their seconds and prints one line for each."""

    def __init__(self, out: Path) -> None:
        self.log = out / "quickstart.log"
        self.seconds: dict[str, float] = {}
        self.log.write_text("")

    def job(self, name: str, *commands: Sequence[str]) -> list[str]:
        """Run the commands of one job and return their standard outputs; raises JobFailed with the end of the log."""
        print(f"  {name:<22}", end="", flush=True)
        started = time.monotonic()
        outputs = [self._command(name, command) for command in commands]
        self.seconds[name] = round(time.monotonic() - started, 1)
        print(f"{self.seconds[name]:>7.1f} s", flush=True)
        return outputs

    def _command(self, name: str, command: Sequence[str]) -> str:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            try:
                done = subprocess.run(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=environment,
                    timeout=JOB_TIMEOUT_SECONDS,
                )
            except subprocess.TimeoutExpired:
                raise JobFailed(
                    f"{name} took more than {JOB_TIMEOUT_SECONDS} s and was stopped; see {self.log}"
                ) from None
            log.write(done.stdout)
        if done.returncode:
            tail = "\n".join(self.log.read_text(encoding="utf-8").splitlines()[-15:])
            raise JobFailed(f"{name} ended with exit code {done.returncode}; the end of {self.log}:\n{tail}")
        return done.stdout


def run(out: Path, examples: Path, *, count: int, seed: int, model: Literal["moe", "dense"] = "moe") -> dict[str, Any]:
    """Run everything from agents to report in `out`; writes summary.json and report.html and prints a summary.

    Raises EnvironmentProblem outside a checkout, JobFailed if a job ends with an error.
    """
    recipe = examples / RECIPES[model]
    if not recipe.is_file():
        raise EnvironmentProblem(f"{recipe} does not exist: run in a checkout, or give the folder with --examples")
    if (out / "run").exists():
        raise EnvironmentProblem(f"{out} contains an earlier quickstart: remove it, or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    print(f"Running the pipeline in {out} (log: {out / 'quickstart.log'})")
    pipeline = Pipeline(out)
    counts = _make_data(pipeline, out, examples, count, seed)
    result = _train(pipeline, out, recipe, seed)
    scores = _export_and_evaluate(pipeline, out)
    steps = read_steps(out / "run")
    summary = {
        "documents": counts["documents_out"],
        "tokens": counts["tokens"],
        "supervised_tokens": counts["supervised_tokens"],
        "dropped": counts["dropped"],
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "steps": len(steps),
        "world_size": result["world_size"],
        "layout": result["layout"],
        "export_dir": str(out / "export"),
        "eval": {name: scores[name]["means"] for name in scores},
        "seconds": pipeline.seconds,
    }
    write_json(out / "summary.json", summary)
    page = write_report(out)
    _print_summary(summary, out, page)
    return summary


def _acc(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "acc_megatron", *map(str, arguments)]


def _make_data(pipeline: Pipeline, out: Path, examples: Path, count: int, seed: int) -> dict[str, Any]:
    trajectories = out / "trajectories"
    agents = [
        [sys.executable, str(examples / "agents" / f"{name}_agent.py"), "--out", str(trajectories),
         "--count", str(count), "--seed", str(seed), "--length-tokens", str(LENGTH_TOKENS)]
        for name in AGENTS
    ]  # fmt: skip
    pipeline.job("agents", *agents)
    dataset, triples = out / "dataset", out / "triples"
    compiled = pipeline.job(
        "compile",
        _acc("compile", trajectories, "--out", triples, "--budget-tokens", "8192", "--seed", str(seed), "--json"),
    )
    converted = pipeline.job("convert", _acc("convert", triples, "--out", dataset, "--max-tokens", "8192", "--json"))
    pipeline.job("verify", _acc("verify", dataset))
    return json.loads(converted[0]) | {"dropped": json.loads(compiled[0])["dropped"]}


def _train(pipeline: Pipeline, out: Path, recipe: Path, seed: int) -> dict[str, Any]:
    """Train half of the schedule, then the rest from the checkpoint, on two processes."""
    overrides = [f"data.path={out / 'dataset'}", f"train.run_dir={out / 'run'}", f"train.seed={seed}"]
    pipeline.job(
        "train (first half)", _torchrun("train", recipe, "--json", *overrides, f"train.max_steps={_half(out, recipe)}")
    )
    output = pipeline.job("train (resumed)", _torchrun("train", recipe, "--json", *overrides))
    return json.loads(output[0].strip().splitlines()[-1])


def _half(out: Path, recipe: Path) -> int:
    from acc_megatron.config import load_config
    from acc_megatron.data_tools.convert.dataset_folder import open_dataset

    config = load_config(recipe)
    rows = open_dataset(out / "dataset").lengths.sum() / config.data.seq_length_tokens
    return max(1, int(rows * config.train.epochs / config.train.global_batch_rows) // 2)


def _torchrun(*arguments: str | Path) -> list[str]:
    launcher = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(NUM_PROCESSES),
        "--master-port",
        str(free_port()),
    ]
    return [sys.executable, *launcher, "-m", "acc_megatron", *map(str, arguments)]


LOAD_IN_TRANSFORMERS = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], local_files_only=True)
chat = [{"role": "user", "content": "hello"}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
assert torch.isfinite(model(**inputs).logits).all()
"""


def _export_and_evaluate(pipeline: Pipeline, out: Path) -> dict[str, Any]:
    export = out / "export"
    pipeline.job("export", _acc("export", out / "run", "--out", export))
    pipeline.job("load in transformers", [sys.executable, "-c", LOAD_IN_TRANSFORMERS, str(export)])
    options = ("--items", "2", "--length-tokens", "2048", "--max-new-tokens", "32", "--json")
    evaluated = pipeline.job("eval", _acc("eval", export, "--out", out / "eval", *options))
    return {name: found["models"][export.name] for name, found in json.loads(evaluated[0]).items()}


def _print_summary(summary: dict[str, Any], out: Path, page: Path) -> None:
    share = summary["supervised_tokens"] / summary["tokens"]
    dropped = ", ".join(f"{count} {reason}" for reason, count in summary["dropped"].items()) or "none"
    print(f"""
What happened
  documents            {summary["documents"]:,} compiled from trajectories of agents (dropped: {dropped})
  tokens               {summary["tokens"]:,}, of which {summary["supervised_tokens"]:,} ({share:.1%}) are supervised
  training             {summary["steps"]} steps on {summary["world_size"]} processes, {summary["layout"]}
  loss                 {summary["loss_first"]:.3f} -> {summary["loss_last"]:.3f}
  model                {summary["export_dir"]} (loads in transformers)
  total                {sum(summary["seconds"].values()):.0f} s

A model of this size learns the format of the answers, not retrieval: its scores on GraphWalks and MRCR
({out / "eval" / "results.json"}) show only that evaluation works.

Next steps
  {page}
  acc-megatron inspect {out / "dataset"} --doc 0""")
