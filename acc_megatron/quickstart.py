"""The whole pipeline on a tiny model: each step runs the commands that a user would type, in processes of their own."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from acc_megatron.common.atomic_files import write_json
from acc_megatron.common.live_line import LiveLine
from acc_megatron.common.network_ports import free_port
from acc_megatron.errors import EnvironmentProblem, JobFailed
from acc_megatron.observe.metrics import read_steps
from acc_megatron.observe.report import write_report

RECIPES = {"moe": "tiny_cpu.toml", "dense": "tiny_dense_cpu.toml"}
AGENTS = ("sql", "swe", "search")
NUM_PROCESSES = 2
LENGTH_TOKENS = 2048  # target of an agent; documents have 2,000 to 6,000 tokens
JOB_TIMEOUT_SECONDS = 900


def _end(process: "subprocess.Popen[str]", is_late: threading.Event) -> None:
    is_late.set()
    process.terminate()


class Pipeline:
    """Runs jobs in order and records their seconds; stderr shows one line for each, and its progress."""

    def __init__(self, out: Path) -> None:
        self.log = out / "quickstart.log"
        self.seconds: dict[str, float] = {}
        self.line = LiveLine()
        self.log.write_text("")

    def job(self, name: str, *commands: Sequence[str]) -> list[str]:
        """Run the commands of one job and return their standard outputs; raises JobFailed with the end of the log."""
        if self.line.is_terminal:
            self.line.show(f"  {name}")
        started = time.monotonic()
        try:
            outputs = [self._command(name, command) for command in commands]
        finally:
            self.line.erase()
        self.seconds[name] = round(time.monotonic() - started, 1)
        self.line.keep(f"  {name:<22}{self.seconds[name]:>7.1f} s")
        return outputs

    def _command(self, name: str, command: Sequence[str]) -> str:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with self.log.open("a", encoding="utf-8") as log, tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            log.write(f"$ {' '.join(command)}\n")
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True, env=environment)
            is_late = threading.Event()
            limit = threading.Timer(JOB_TIMEOUT_SECONDS, lambda: _end(process, is_late))
            limit.start()
            try:
                assert process.stderr is not None
                for line in process.stderr:
                    log.write(line)
                    log.flush()
                    self._show(name, line.rstrip())
                code = process.wait()
            finally:
                limit.cancel()
            output.seek(0)
            printed = output.read()
            log.write(printed)
        if is_late.is_set():
            raise JobFailed(f"{name} took more than {JOB_TIMEOUT_SECONDS} s and was stopped; see {self.log}")
        if code:
            tail = "\n".join(self.log.read_text(encoding="utf-8").splitlines()[-15:])
            raise JobFailed(f"{name} ended with exit code {code}; the end of {self.log}:\n{tail}")
        return printed

    def _show(self, name: str, line: str) -> None:
        """Show what a job says: its newest line on a terminal, its training steps elsewhere."""
        if self.line.is_terminal and line:
            self.line.show(f"  {name}  {line}")
        elif line.startswith("step "):
            self.line.keep(f"    {line}")


def run(out: Path, examples: Path, *, count: int, seed: int, model: Literal["moe", "dense"] = "moe") -> dict[str, Any]:
    """Run everything from agents to report in `out`; writes summary.json and report.html, and returns the summary.

    Raises EnvironmentProblem outside a checkout, JobFailed if a job ends with an error.
    """
    recipe = examples / RECIPES[model]
    if not recipe.is_file():
        raise EnvironmentProblem(f"{recipe} does not exist: run in a checkout, or give the folder with --examples")
    if (out / "run").exists():
        raise EnvironmentProblem(f"{out} contains an earlier quickstart: remove it, or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline(out)
    pipeline.line.keep(f"Running the pipeline in {out} (log: {pipeline.log})")
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
    return summary | {"page": str(write_report(out))}


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
    if pipeline.line.is_terminal:
        overrides.append("observe.print_every_steps=1")
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


def summary_text(summary: dict[str, Any], out: Path) -> str:
    """What happened, in words."""
    share = summary["supervised_tokens"] / summary["tokens"]
    dropped = ", ".join(f"{count} {reason}" for reason, count in summary["dropped"].items()) or "none"
    return f"""\
What happened
  documents            {summary["documents"]:,} from runs of agents (dropped: {dropped})
  tokens               {summary["tokens"]:,}, of which {summary["supervised_tokens"]:,} ({share:.1%}) are supervised
  training             {summary["steps"]} steps on {summary["world_size"]} processes, {summary["layout"]}
  loss                 {summary["loss_first"]:.3f} -> {summary["loss_last"]:.3f}
  model                {summary["export_dir"]} (loads in transformers)
  total                {sum(summary["seconds"].values()):.0f} s

A model of this size learns the format of the answers, not retrieval: its scores
on GraphWalks and MRCR show only that evaluation works. They are in
{out / "eval" / "results.json"}
The report is {summary["page"]}"""
