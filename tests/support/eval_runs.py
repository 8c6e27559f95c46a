"""Small runs of `eval`: settings, a server that knows every answer, and the run itself."""

import re
from pathlib import Path
from typing import Any

from acc_megatron.evaluate.benchmarks.graphwalks.problem import solve
from acc_megatron.evaluate.runner import evaluate
from acc_megatron.evaluate.settings import run_from_tree
from support.teacher_server import Teacher, completion, send_json

EDGE = re.compile(r"^(\w{10}) -> (\w{10})$", re.MULTILINE)
TASK = re.compile(r"Find the parents of node (\w{10})\.|BFS from node (\w{10}) and return only.* depth (\d+) ")
QUICK = {"tries": 2, "timeout_seconds": 60.0, "concurrency": 4}


def truthful(handler: Any, body: dict[str, Any], _: int) -> None:
    """Answers with the solution of the graph in the prompt."""
    text = body["messages"][0]["content"]
    edges = EDGE.findall(text)
    parents, start, depth = TASK.findall(text)[-1]
    operation: Any = "parents" if parents else "bfs"
    nodes = solve(edges, operation, parents or start, int(depth) if depth else None)
    send_json(handler, completion(f"Final Answer: [{', '.join(nodes)}]", reasoning="I looked."))


def endpoint(teacher: Teacher, **changes: Any) -> dict[str, Any]:
    """The settings of a model behind this server."""
    return {"endpoint": teacher.url, "model": "m", "window_tokens": 4096, **QUICK, **changes}


def tree(models: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The settings of a run of six short GraphWalks problems."""
    generated = {"kind": "graphwalks", "items": 6, "length_tokens": [900], "max_new_tokens": 8}
    return {"name": "test", "models": models, "benchmarks": {"walks": generated}, "bootstrap_samples": 50} | changes


def start(out: Path, models: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Run `tree(models, ...)`; returns the results with the lines of progress under `lines`."""
    lines: list[str] = []
    results = evaluate(run_from_tree(tree(models, **changes), "run.toml"), out, show=lines.append)
    return results | {"lines": lines}
