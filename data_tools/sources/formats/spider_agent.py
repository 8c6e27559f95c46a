"""Spider 2's agent logs: `trajectory` with an action written as a Python call; a step shows what was seen before it."""

import re
from typing import Any

from acc_megatron.data_tools.conversation import Turn, agent_turn, call_text
from acc_megatron.data_tools.rows.fields import objects_of
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.log_format import Fences, LogFormat, Step, Transcript

_ACTION = re.compile(r"\s{0,80}([A-Z][A-Za-z_]{1,40})\(")
_SQL_ACTION = re.compile(r"\s{0,80}\w{0,40}SQL\(")
_OUTPUT = re.compile(r'^Terminate\(output="(.*)"\)$', re.DOTALL)


class SpiderAgent(LogFormat):
    """Actions such as LOCAL_DB_SQL(...), BIGQUERY_EXEC_SQL(...) and Bash(...); `code` has the text of a query."""

    name = "Spider 2 agent log"
    agent = "sql"

    def recognises(self, value: dict[str, Any]) -> bool:
        """Whether `trajectory` lists steps with `code`, of which one runs SQL, or the row has a `Task`."""
        steps = value.get("trajectory")
        if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
            return False
        actions = [step["action"] for step in steps if "code" in step and isinstance(step.get("action"), str)]
        runs_sql = any(_SQL_ACTION.match(action) for action in actions)
        return runs_sql or (bool(actions) and "Task" in value)

    def transcript(self, value: dict[str, Any], *, fences: Fences = "") -> Transcript:
        """A step for each action, with the observation of the step after it. Raises Dropped('malformed')."""
        steps = objects_of(value, "trajectory")
        outputs = [*(_text(step, "observation") for step in steps[1:]), ""]
        read = tuple(_step(step, output) for step, output in zip(steps, outputs, strict=True))
        ended = _OUTPUT.match(_text(steps[-1], "action").strip()) if steps else None
        return Transcript(prompt=_text(value, "Task"), steps=read, final=ended[1] if ended else "")

    def turns(self, value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
        """The question, and a call and an output for each action."""
        system = _text(value, "system_message")
        turns = [Turn(role="system", text=system)] if system else []
        turns.append(Turn(role="user", text=trajectory.question))
        for step in self.transcript(value).steps:
            turns.append(agent_turn(reasoning=step.thought, calls=(call_text(step.tool, step.arguments),)))
            turns.append(Turn(role="tool", text=step.output))
        return turns


def _step(step: dict[str, Any], output: str) -> Step:
    action, code = _text(step, "action"), _text(step, "code")
    named = _ACTION.match(action)
    arguments = {"sql": code} if _SQL_ACTION.match(action) and code else {"input": code or action}
    tool = named[1] if named else "action"
    return Step(thought=_text(step, "thought"), tool=tool, arguments=arguments, output=output)


def _text(value: dict[str, Any], key: str) -> str:
    return value[key] if isinstance(value.get(key), str) else ""
