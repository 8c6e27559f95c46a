"""The result of LangChain's AgentExecutor: `intermediate_steps` lists pairs of an action and its observation."""

import json
from typing import Any

from acc_megatron.data_tools.conversation import Turn, agent_turn, call_text
from acc_megatron.data_tools.rows.fields import optional_object
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.log_format import Fences, LogFormat, Step, Transcript
from acc_megatron.data_tools.sources.formats.message_steps import arguments_of
from acc_megatron.data_tools.sources.formats.text_calls import text_without_calls

_KEYS = ("intermediate_steps", "steps")
_PLACES = ("outputs", "inputs", "output")  # of a run of LangSmith
_PAIR = 2


class LangChainSteps(LogFormat):
    """Pairs `[action, observation]`, or objects with both; `input` is the question and `output` the closing text."""

    name = "LangChain intermediate steps"

    def recognises(self, value: dict[str, Any]) -> bool:
        """Whether `intermediate_steps` is a list of pairs whose actions name a tool."""
        return bool(_pairs(value))

    def transcript(self, value: dict[str, Any], *, fences: Fences = "") -> Transcript:
        """A step for each pair; the log of an action before its call is the thought."""
        steps = tuple(_step(action, observation) for action, observation in _pairs(value))
        return Transcript(prompt=_text(value, "input"), steps=steps, final=_text(value, "output"))

    def turns(self, value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
        """The question, a call and an output for each pair, and the closing text."""
        turns = [Turn(role="user", text=trajectory.question)]
        transcript = self.transcript(value)
        for step in transcript.steps:
            turns.append(agent_turn(reasoning=step.thought, calls=(call_text(step.tool, step.arguments),)))
            turns.append(Turn(role="tool", text=step.output))
        return [*turns, agent_turn(transcript.final or trajectory.answer)]


def _pairs(value: dict[str, Any]) -> list[tuple[dict[str, Any], Any]]:
    places = (value, *(optional_object(value, place) for place in _PLACES))
    found = next((place[key] for place in places for key in _KEYS if isinstance(place.get(key), list)), None)
    pairs: list[tuple[dict[str, Any], Any]] = []
    for item in found if isinstance(found, list) else ():
        if isinstance(item, dict) and isinstance(item.get("action"), dict):
            action, observation = item["action"], item.get("observation")
        elif isinstance(item, list) and len(item) == _PAIR and isinstance(item[0], dict):
            action, observation = item
        else:
            return []
        action = action["kwargs"] if isinstance(action.get("kwargs"), dict) else action
        if not isinstance(action.get("tool"), str):
            return []
        pairs.append((action, observation))
    return pairs


def _step(action: dict[str, Any], observation: Any) -> Step:
    arguments = arguments_of(next((action[key] for key in ("tool_input", "input", "args") if key in action), None))
    output = observation if isinstance(observation, str) else json.dumps(observation, ensure_ascii=False)
    thought = text_without_calls(text_of_parts(action.get("log")))
    return Step(thought=thought, tool=action["tool"], arguments=arguments, output=output)


def _text(value: dict[str, Any], key: str) -> str:
    places = (value, *(optional_object(value, place) for place in _PLACES))
    return next((place[key] for place in places if isinstance(place.get(key), str)), "")
