"""BIRD-Interact's logs of its own agent: turns with an action written as a Python call, next to the task."""

import re
from typing import Any

from acc_megatron.data_tools.conversation import Turn, agent_turn, call_text
from acc_megatron.data_tools.rows.fields import literal, objects_of, optional_object
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.log_format import Fences, LogFormat, Step, Transcript

_ACTION = re.compile(r"\s{0,80}([a-z_]{1,40})\((.*)\)[\s;]{0,80}", re.DOTALL)
_QUESTION_KEYS = ("query", "amb_user_query")
_ASK = "ask"


class BirdInteract(LogFormat):
    """`interaction_history` lists actions such as execute("SELECT ...") and ask("..."); `original_data` is the task.

    A second phase has another question, so its turns are left out.
    """

    name = "BIRD-Interact turns"
    agent = "sql"

    def recognises(self, value: dict[str, Any]) -> bool:
        """Whether `interaction_history` lists actions, and there is a task."""
        turns = value.get("interaction_history")
        is_list = isinstance(turns, list) and all(isinstance(turn, dict) and "action" in turn for turn in turns)
        return is_list and isinstance(value.get("original_data"), dict)

    def transcript(self, value: dict[str, Any], *, fences: Fences = "") -> Transcript:
        """A step for each turn of the first phase. Raises Dropped('malformed')."""
        task = optional_object(value, "original_data")
        turns = [turn for turn in objects_of(value, "interaction_history") if turn.get("phase", 1) == 1]
        prompt = next((text for key in _QUESTION_KEYS if (text := _text(task, key))), "")
        return Transcript(prompt=prompt, steps=tuple(map(_step, turns)), final="")

    def turns(self, value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
        """The question, and a call and an output for each turn of the first phase."""
        turns = [Turn(role="user", text=trajectory.question)]
        for step in self.transcript(value).steps:
            turns.append(agent_turn(reasoning=step.thought, calls=(call_text(step.tool, step.arguments),)))
            turns.append(Turn(role="tool", text=step.output))
        return turns


def _step(turn: dict[str, Any]) -> Step:
    action = _text(turn, "action")
    called = _ACTION.fullmatch(action)
    tool, given = (called[1], _literal(called[2])) if called else ("action", action)
    name = "question" if tool == _ASK else "sql"
    return Step(
        thought=_text(turn, "thought"),
        tool=tool,
        arguments={name: given} if given else {},
        output=_text(turn, "observation"),
    )


def _literal(text: str) -> str:
    """The text of a Python string; agents also write quotes and lines that Python does not read."""
    found = literal(text.strip())
    return found if isinstance(found, str) else text.strip().strip("'\"")


def _text(value: dict[str, Any], key: str) -> str:
    return value[key].strip() if isinstance(value.get(key), str) else ""
