"""InterCode's logs of SQL runs: `turn_history` with parallel lists of actions, observations and thoughts.

Its logs of people have a `trajectory` of actions with observations, and the reward next to it.
"""

import json
import re
from typing import Any

from acc_megatron.data_tools.conversation import Turn, agent_turn, call_text
from acc_megatron.data_tools.rows.fields import list_of, object_of, objects_of, texts_of
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.log_format import Fences, LogFormat, Step, Transcript

_EXECUTE = re.compile(r"\s*execute\[(.*)\]\s*", re.DOTALL)
_SUBMIT = re.compile(r"\s*submit(?:\[.*\])?\s*", re.DOTALL)


class InterCode(LogFormat):
    """Actions are SQL, bare or inside `execute[...]`; `submit` ends the run."""

    name = "InterCode turn history"
    agent = "sql"

    def recognises(self, value: dict[str, Any]) -> bool:
        """Whether the row has a `turn_history` object, or is the log of a person."""
        return isinstance(value.get("turn_history"), dict) or is_log_of_person(value)

    def transcript(self, value: dict[str, Any], *, fences: Fences = "") -> Transcript:
        """A step for each query; the prompt is the row's `question`. Raises Dropped('malformed')."""
        steps, _ = _steps_and_last_thought(history_of(value))
        question = value.get("question")
        return Transcript(prompt=question if isinstance(question, str) else "", steps=tuple(steps), final="")

    def turns(self, value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
        """The question, a call and an output for each query, and the answer of the trajectory."""
        steps, last_thought = _steps_and_last_thought(history_of(value))
        turns = [Turn(role="user", text=trajectory.question)]
        for step in steps:
            turns.append(agent_turn(reasoning=step.thought, calls=(call_text(step.tool, step.arguments),)))
            turns.append(Turn(role="tool", text=step.output))
        return [*turns, agent_turn(trajectory.answer, reasoning=last_thought)]


def is_log_of_person(value: dict[str, Any]) -> bool:
    """Whether a row is InterCode's log of a person who writes SQL."""
    return value.get("environment") == "ic_sql" and isinstance(value.get("trajectory"), list)


def history_of(value: dict[str, Any]) -> dict[str, Any]:
    """The `turn_history` of a row, also of the log of a person. Raises Dropped('malformed')."""
    if not is_log_of_person(value):
        return object_of(value, "turn_history")
    steps = objects_of(value, "trajectory")
    lists = {f"{key}s": [step.get(key) for step in steps] for key in ("action", "observation")}
    return lists | {"rewards": [value.get("reward")]}


def query_of(action: str) -> str:
    """The SQL of an action, without the `execute[...]` around it."""
    wrapped = _EXECUTE.fullmatch(action)
    return (wrapped[1] if wrapped else action).strip()


def observations_of(history: dict[str, Any]) -> list[str]:
    """The observations of a `turn_history`; rows that are not text become JSON. Raises Dropped('malformed')."""
    found = list_of(history, "observations")
    return [item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in found]


def thoughts_of(history: dict[str, Any]) -> list[str]:
    """The thoughts of a `turn_history`, empty if it has none. Raises Dropped('malformed')."""
    return texts_of(history, "thoughts") if history.get("thoughts") is not None else []


def _steps_and_last_thought(history: dict[str, Any]) -> tuple[list[Step], str]:
    """The steps before `submit`, and the thought of `submit`."""
    actions, observations = texts_of(history, "actions"), observations_of(history)
    thoughts = thoughts_of(history)
    steps: list[Step] = []
    for i, (action, output) in enumerate(zip(actions, observations, strict=False)):
        thought = thoughts[i] if i < len(thoughts) else ""
        if _SUBMIT.fullmatch(action):
            return steps, thought
        steps.append(Step(thought=thought, tool="sql", arguments={"query": query_of(action)}, output=output))
    return steps, ""
