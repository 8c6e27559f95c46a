"""Generated SWE runs: with an instance row and its files, and rows of runs that passed without either."""

import json
import random
from pathlib import Path
from typing import Any

from support.generated_runs.layouts import MESSAGE_LAYOUTS, Call, Layout, Run
from support.generated_runs.made import Made

NUM_INSTANCES = 20
FAULTS = ("", "", "", "", "failed", "unknown", "unknown unjudged", "unknown unseen", "silent")
_PATCH_KEYS = ("model_patch", "generated_patch", "output_patch")


def _old(number: int) -> str:
    return f"def f{number}():\n    return {number}\n"


def _patch(number: int) -> str:
    return (
        "diff --git a/pkg/a.py b/pkg/a.py\n--- a/pkg/a.py\n+++ b/pkg/a.py\n@@ -1,2 +1,2 @@\n"
        f" def f{number}():\n-    return {number}\n+    return {number + 1}"
    )


def write_instances(folder: Path) -> Path:
    path = folder / "instances.jsonl"
    rows = [
        {
            "instance_id": f"own__repo-{number}", "repo": "own/repo", "base_commit": "0" * 40,
            "problem_statement": f"f{number} is off by one", "patch": _patch(number),
            "files_at_base_commit": {"pkg/a.py": _old(number), "pkg/b.py": "B = 1\n"},
        }
        for number in range(NUM_INSTANCES)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def swe_row(number: int, chosen: random.Random) -> Made:
    layouts: dict[str, Layout] = MESSAGE_LAYOUTS
    layout, fault = chosen.choice(list(layouts)), chosen.choice(FAULTS)
    instance = chosen.randrange(NUM_INSTANCES)
    lines = _old(instance).split("\n")
    numbered = "".join(f"     {i}\t{line}\n" for i, line in enumerate(lines, start=1))
    if fault == "unknown unseen":
        numbered = f"     1\t{lines[0]}\n<response clipped>"
    path = "/workspace/repo/pkg/a.py"
    view = f"Here's the result of running `cat -n` on {path}:\n{numbered}"
    thoughts = ["", ""] if fault == "silent" else [f"I read f{instance} in run {number}.", "I see the cause."]
    look = {"command": "view", "path": path}
    calls = (
        Call(thought=thoughts[0], tool="str_replace_editor", arguments=look, output=view),
        Call(thought=thoughts[1], tool="bash", arguments={"command": "cat pkg/b.py"}, output="B = 1"),
    )
    statement = f"f{instance} is off by one"
    prompt = f"Repair this.\n<issue_description>\n{statement}\n</issue_description>"
    row = layouts[layout](Run(prompt=prompt, calls=calls, final="It is done."))
    is_unknown = fault.startswith("unknown")
    row["instance_id"] = f"other__repo-{number}" if is_unknown else f"own__repo-{instance}"
    row |= {chosen.choice(_PATCH_KEYS): _patch(instance)} if is_unknown else {}
    verdicts: list[dict[str, Any]] = [{"resolved": True}, {"reward": 1.0}, {"info": {"resolved": True}}]
    failures: list[dict[str, Any]] = [{"resolved": False}, {"reward": 0}, {"exit_status": "exit_cost"}]
    if fault != "unknown unjudged":
        row |= chosen.choice(failures if fault == "failed" else verdicts)
    reasons = {
        "failed": "unresolved", "unknown unjudged": "no_instance_row", "unknown unseen": "own_patch_not_seen",
        "silent": "empty_reasoning",
    }  # fmt: skip
    return Made(
        name=f"swe {layout} {fault}",
        row=row,
        question=statement,
        evidence={"pkg/a.py": _old(instance)},
        reasoning="\n\n".join(thought for thought in thoughts if thought),
        answer=_patch(instance),
        reason=reasons.get(fault, ""),
    )
