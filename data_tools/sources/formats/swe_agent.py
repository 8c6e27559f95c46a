"""SWE-agent's `.traj` files: `trajectory` with a thought, an action and an observation for each step."""

from typing import Any

from acc_megatron.data_tools.conversation import Turn, agent_turn, call_text
from acc_megatron.data_tools.rows.fields import objects_in, objects_of, optional_object
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.log_format import Fences, LogFormat, Step, Transcript
from acc_megatron.data_tools.sources.formats.message_log import MESSAGE_KEYS
from acc_megatron.data_tools.sources.formats.message_steps import text_of_message
from acc_megatron.data_tools.sources.formats.message_turns import observation_text
from acc_megatron.data_tools.sources.formats.text_calls import Call, calls_in_text
from acc_megatron.errors import Dropped

_FUNCTION = "<function="  # the actions of R2E-Gym are calls in text


class SweAgentSteps(LogFormat):
    """A list of steps under `trajectory` (R2E-Gym: `trajectory_steps`); the prompts are messages under `history`."""

    name = "SWE-agent trajectory"
    agent = "swe"

    def recognises(self, value: dict[str, Any]) -> bool:
        """Whether `trajectory` is a list of steps: with observations, or of a run with an exit status."""
        steps = value.get(_key(value))
        if not isinstance(steps, list) or any(isinstance(step, dict) and "role" in step for step in steps):
            return False
        has_observations = not steps or any(isinstance(step, dict) and "observation" in step for step in steps)
        return has_observations or "exit_status" in optional_object(value, "info")

    def transcript(self, value: dict[str, Any], *, fences: Fences = "") -> Transcript:
        """The steps, each a call of `bash`. Raises Dropped('malformed')."""
        steps = tuple(_step(step) for step in objects_of(value, _key(value)))
        return Transcript(prompt=first_prompt(value), steps=steps, final="")

    def turns(self, value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
        """The system prompt, the first prompt, and a call and an output for each step."""
        history = value.get("history")
        messages = objects_in(history)
        system = next((observation_text(item.get("content")) for item in messages if item.get("role") == "system"), "")
        turns = [Turn(role="system", text=system)] if system else []
        turns.append(Turn(role="user", text=first_prompt(value) or trajectory.question))
        for step in objects_of(value, _key(value)):
            command, read = observation_text(step.get("action")).strip(), _step(step)
            call = call_text("execute", {"command": command}) if _FUNCTION not in command else _call_of(read)
            calls = (call,) if command else ()
            turns.append(agent_turn(reasoning=observation_text(step.get("thought")), calls=calls))
            turns.append(Turn(role="tool", text=observation_text(step.get("observation"))))
        return turns


def first_prompt(value: dict[str, Any]) -> str:
    """The first user message after any demonstration, in messages or OpenHands events; '' without one."""
    for key in ("history", "events", *MESSAGE_KEYS):
        items = value.get(key)
        for item in items if isinstance(items, list) else []:
            if not isinstance(item, dict) or item.get("is_demo"):
                continue
            if item.get("role") == "user":
                return _text_or_nothing(item)
            if item.get("action") == "message" and item.get("source") == "user":
                return str(optional_object(item, "args").get("content", ""))
    return ""


def _step(step: dict[str, Any]) -> Step:
    """A step; a field of the wrong type counts as absent."""
    thought, action, observation = (
        text if isinstance(text := step.get(key), str) else "" for key in ("thought", "action", "observation")
    )
    calls = calls_in_text(action) if _FUNCTION in action else []
    call = calls[0] if calls else Call("bash", {"command": action})
    return Step(thought=thought, tool=call.tool, arguments=call.arguments, output=observation)


def _call_of(step: Step) -> str:
    return call_text(step.tool, step.arguments)


def _key(value: dict[str, Any]) -> str:
    return "trajectory_steps" if "trajectory_steps" in value else "trajectory"


def _text_or_nothing(message: dict[str, Any]) -> str:
    try:
        return text_of_message(message)
    except Dropped:
        return ""
