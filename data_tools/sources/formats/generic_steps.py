"""The format for agents without one of their own: `question`, `steps` of {thought, tool, input, output}, `answer`."""

import json
from typing import Any

from acc_megatron.data_tools.conversation import Turn, agent_turn, call_text
from acc_megatron.data_tools.rows.fields import objects_of
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.log_format import Fences, LogFormat, Step, Transcript
from acc_megatron.data_tools.sources.formats.message_steps import THOUGHT_KEYS, arguments_of
from acc_megatron.data_tools.sources.formats.message_turns import observation_text
from acc_megatron.errors import Dropped

_TOOL_KEYS = ("tool", "tool_name", "name", "action")
_INPUT_KEYS = ("input", "tool_input", "arguments", "args", "action_input")
_OUTPUT_KEYS = ("output", "observation", "result", "response")
_MAX_TOOL_NAMES = 50


class GenericSteps(LogFormat):
    """A non-empty list of objects under `steps`."""

    name = "generic steps"

    def recognises(self, value: dict[str, Any]) -> bool:
        """Whether `steps` is a non-empty list of objects."""
        steps = value.get("steps")
        return isinstance(steps, list) and bool(steps) and all(isinstance(step, dict) for step in steps)

    def transcript(self, value: dict[str, Any], *, fences: Fences = "") -> Transcript:
        """The steps; the prompt is the row's `question`. Raises Dropped('malformed')."""
        question = value.get("question")
        steps = tuple(_step(item) for item in objects_of(value, "steps"))
        return Transcript(prompt=question if isinstance(question, str) else "", steps=steps, final="")

    def turns(self, value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
        """The question, a call and an output for each step, and the answer of the trajectory."""
        turns = [Turn(role="user", text=trajectory.question)]
        for step in self.transcript(value).steps:
            turns.append(agent_turn(reasoning=step.thought, calls=(call_text(step.tool or "tool", step.arguments),)))
            turns.append(Turn(role="tool", text=observation_text(step.output)))
        return [*turns, agent_turn(trajectory.answer, reasoning=trajectory.reasoning)]

    def tool_names(self, value: dict[str, Any]) -> set[str]:
        """The names under any key of a tool; reading stops after 50."""
        names: set[str] = set()
        for step in value["steps"]:
            names.update(step[key] for key in _TOOL_KEYS if isinstance(step.get(key), str))
            if len(names) >= _MAX_TOOL_NAMES:
                break
        return names


def _step(item: dict[str, Any]) -> Step:
    name, given, output, thought = (
        next((item[key] for key in keys if item.get(key) is not None), "")
        for keys in (_TOOL_KEYS, _INPUT_KEYS, _OUTPUT_KEYS, THOUGHT_KEYS)
    )
    if not isinstance(name, str) or not isinstance(thought, str):
        raise Dropped("malformed", "the tool and the thought of a step must be strings")
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    return Step(thought=thought, tool=name, arguments=arguments_of(given), output=text)
