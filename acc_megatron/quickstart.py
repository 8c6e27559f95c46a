"""The whole road on a tiny model, each stage the command a user would type, run as a process of its own."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acc_megatron.data_tools.atomic import write_json
from acc_megatron.errors import AccError, EnvironmentProblem
from acc_megatron.observe.metrics import read_steps
from acc_megatron.observe.report import write_report

AGENTS = ("sql", "swe", "search")
NUM_PROCESSES = 2
LENGTH_TOKENS = 2048  # what an agent aims at; documents come out at 2,000 to 6,000
STAGE_TIMEOUT_SECONDS = 900


class StageFailed(AccError):
    """A stage of the road ended with an error."""

    exit_code = 1


class Road:
    """Runs stages in order, keeps their seconds, and prints a line for each."""

    def __init__(self, out: Path) -> None:
        self.log = out / "quickstart.log"
        self.seconds: dict[str, float] = {}
        self.log.write_text("")

    def stage(self, name: str, *commands: Sequence[str]) -> list[str]:
        """Run the commands of one stage; their standard outputs. Raises StageFailed with the end of the log."""
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
                    timeout=STAGE_TIMEOUT_SECONDS,
                )
            except subprocess.TimeoutExpired:
                raise StageFailed(
                    f"{name} took over {STAGE_TIMEOUT_SECONDS} s and was stopped; see {self.log}"
                ) from None
            log.write(done.stdout)
        if done.returncode:
            tail = "\n".join(self.log.read_text(encoding="utf-8").splitlines()[-15:])
            raise StageFailed(f"{name} ended with {done.returncode}; the end of {self.log}:\n{tail}")
        return done.stdout


def run(out: Path, examples: Path, *, count: int, seed: int) -> dict[str, Any]:
    """Drive the road from agents to report in `out`; writes summary.json and report.html, prints a table.

    Raises EnvironmentProblem outside a checkout, StageFailed when a stage ends with an error.
    """
    recipe = examples / "tiny_cpu.toml"
    if not recipe.is_file():
        raise EnvironmentProblem(f"no {recipe}: run quickstart in a checkout, or give its --examples folder")
    if (out / "run").exists():
        raise EnvironmentProblem(f"{out} holds an earlier quickstart: remove it, or give another --out")
    out.mkdir(parents=True, exist_ok=True)
    print(f"The road, in {out} (log: {out / 'quickstart.log'})")
    road = Road(out)
    counts = _make_data(road, out, examples, count, seed)
    result = _train(road, out, recipe, seed)
    scores = _export_and_evaluate(road, out)
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
        "seconds": road.seconds,
    }
    write_json(out / "summary.json", summary)
    page = write_report(out)
    _print_summary(summary, out, page)
    return summary


def _acc(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "acc_megatron", *map(str, arguments)]


def _make_data(road: Road, out: Path, examples: Path, count: int, seed: int) -> dict[str, Any]:
    trajectories = out / "trajectories"
    agents = [
        [sys.executable, str(examples / "agents" / f"{name}_agent.py"), "--out", str(trajectories),
         "--count", str(count), "--seed", str(seed), "--length-tokens", str(LENGTH_TOKENS)]
        for name in AGENTS
    ]  # fmt: skip
    road.stage("agents", *agents)
    dataset, triples = out / "dataset", out / "triples"
    compiled = road.stage(
        "compile",
        _acc("compile", trajectories, "--out", triples, "--budget-tokens", "8192", "--seed", str(seed), "--json"),
    )
    converted = road.stage("convert", _acc("convert", triples, "--out", dataset, "--max-tokens", "8192", "--json"))
    road.stage("verify", _acc("verify", dataset))
    return json.loads(converted[0]) | {"dropped": json.loads(compiled[0])["dropped"]}


def _train(road: Road, out: Path, recipe: Path, seed: int) -> dict[str, Any]:
    """Half the schedule, then the rest from the checkpoint, on two processes with EP 2 and CP 2."""
    overrides = [f"data.path={out / 'dataset'}", f"train.run_dir={out / 'run'}", f"train.seed={seed}"]
    road.stage(
        "train (first half)", _torchrun("train", recipe, "--json", *overrides, f"train.max_steps={_half(out, recipe)}")
    )
    output = road.stage("train (resumed)", _torchrun("train", recipe, "--json", *overrides))
    return json.loads(output[0].strip().splitlines()[-1])


def _half(out: Path, recipe: Path) -> int:
    from acc_megatron.config import load_config
    from acc_megatron.data_tools.dataset_folder import open_dataset

    config = load_config(recipe)
    rows = open_dataset(out / "dataset").lengths.sum() / config.data.seq_length_tokens
    return max(1, int(rows * config.train.epochs / config.train.global_batch_rows) // 2)


def _torchrun(*arguments: str | Path) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(NUM_PROCESSES), "--master-port", str(port)]
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


def _export_and_evaluate(road: Road, out: Path) -> dict[str, Any]:
    export = out / "export"
    road.stage("export", _acc("export", out / "run", "--out", export))
    road.stage("load in transformers", [sys.executable, "-c", LOAD_IN_TRANSFORMERS, str(export)])
    options = ("--items", "2", "--length-tokens", "2048", "--max-new-tokens", "32", "--json")
    evaluated = road.stage("eval", _acc("eval", export, "--out", out / "eval", *options))
    return {name: found["models"][export.name] for name, found in json.loads(evaluated[0]).items()}


def _print_summary(summary: dict[str, Any], out: Path, page: Path) -> None:
    share = summary["supervised_tokens"] / summary["tokens"]
    dropped = ", ".join(f"{count} {reason}" for reason, count in summary["dropped"].items()) or "none"
    print(f"""
What happened
  documents            {summary["documents"]:,} compiled from agents' trajectories (dropped: {dropped})
  tokens               {summary["tokens"]:,}, of which {summary["supervised_tokens"]:,} ({share:.1%}) are trained on
  training             {summary["steps"]} steps on {summary["world_size"]} processes, {summary["layout"]}
  loss                 {summary["loss_first"]:.3f} -> {summary["loss_last"]:.3f}
  model                {summary["export_dir"]} (loads in transformers)
  total                {sum(summary["seconds"].values()):.0f} s

A model this small learns the form of the answers, not to look things up: its scores on GraphWalks and MRCR
({out / "eval" / "results.json"}) only show that evaluation runs.

Look at
  {page}
  acc-megatron inspect {out / "dataset"} --doc 0""")
