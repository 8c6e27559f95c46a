"""A trajectory in ATIF is a run with its reasoning, calls, outputs and tools, judged by the result above it."""

import json
from pathlib import Path
from typing import Any

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.convert.tool_definitions import tools_of_row
from acc_megatron.data_tools.sources.formats.known_formats import transcript_of, turns_of
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS, agent_of
from acc_megatron.data_tools.sources.swe.agent import SweAgent

CALL = {"tool_call_id": "c1", "function_name": "bash", "arguments": {"command": "cat b.py"}}
RESULTS = [{"source_call_id": "c1", "content": "import a"}]
STEPS: list[dict[str, Any]] = [
    {"step_id": 1, "source": "system", "message": "You fix."},
    {"step_id": 2, "source": "user", "message": [{"type": "text", "text": "f should return 2"}]},
    {
        "step_id": 3, "source": "agent", "message": "I look.", "reasoning_content": "Where is it?",
        "tool_calls": [CALL], "observation": {"results": RESULTS}, "metrics": {"prompt_tokens": 1},
    },
    {"step_id": 4, "source": "agent", "message": "done"},
]  # fmt: skip
TOOL = {"type": "function", "function": {"name": "bash", "parameters": {}}}
ROW = {
    "schema_version": "ATIF-v1.5",
    "session_id": "s",
    "agent": {"name": "x", "tool_definitions": [TOOL]},
    "steps": STEPS,
}


def test_a_trajectory_is_a_run_judged_by_the_result_above_it(tmp_path: Path) -> None:
    for name, reward in (("passed", 1.0), ("failed", 0.0)):
        trial = tmp_path / name
        (trial / "agent").mkdir(parents=True)
        (trial / "agent" / "trajectory.json").write_text(json.dumps(ROW))
        (trial / "config.json").write_text("{}")
        (trial / "result.json").write_text(json.dumps({"verifier_result": {"rewards": {"reward": reward}}}))
    found = discover([tmp_path])
    rows = [row for part in found.ranges(2) for row in found.rows(part)]
    verdicts = {Path(row.file).parts[-3]: found.resources.reports.verdict(row.file, "") for row in rows}
    assert verdicts == {"passed": True, "failed": False}
    row = next(row for row in rows if "passed" in row.file)
    assert isinstance(row, Row) and agent_of(row.value) is AGENT_KINDS["swe"]
    transcript = transcript_of(row.value)
    assert (transcript.prompt, transcript.final) == ("f should return 2", "done")
    (step,) = transcript.steps
    assert (step.thought, step.tool, step.output) == ("Where is it?\n\nI look.", "bash", "import a")
    run = SweAgent().read_run(row, found.resources)
    assert run.is_judged and run.question == "f should return 2"
    assert [turn.role for turn in turns_of(row.value, run)] == ["system", "user", "assistant", "tool", "assistant"]
    assert tools_of_row(row.value) == (json.dumps(TOOL),)
