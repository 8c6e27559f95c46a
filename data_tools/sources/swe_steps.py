"""The steps of a SWE run in each layout: SWE-agent `.traj`, its history alone, chat messages, OpenHands events.

Events of OpenHands' SDK are messages by then (see messages.py); those read here are of OpenHands before it.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from acc_megatron.data_tools.schema import Dropped
from acc_megatron.data_tools.sources.fields import objects_of, optional_object
from acc_megatron.data_tools.sources.messages import MESSAGE_KEYS
from acc_megatron.data_tools.sources.search_pages import tool_kind
from acc_megatron.data_tools.sources.transcript import (
    Step,
    message_key,
    text_of_message,
    tool_names,
    transcript_of,
)

_TERMINAL = str.maketrans("", "", "\r\b")
_SHELL_TOOLS = {"bash", "shell", "terminal", "execute_bash", "run_command", "run", "cmd", "execute_command"}
_FILE_TOOLS = {
    "str_replace_editor", "str_replace_based_edit_tool", "file_editor", "edit_file", "read_file", "view_file",
    "open_file",
}  # fmt: skip
_OWN_KEYS = {"agent", "message_type", "is_demo"}  # of SWE-agent's messages
_TASK_KEYS = ("instance_id", "instance", "problem_statement", "base_commit")


def is_swe_run(value: dict[str, Any]) -> bool:
    """Whether a row is a run in one of the layouts: by its steps, or by messages beside signs of a SWE task."""
    steps, key = value.get("trajectory"), message_key(value)
    if isinstance(steps, list) and (not steps or (isinstance(steps[0], dict) and "observation" in steps[0])):
        return True
    if events_of(value) is not None:
        return True
    if key is None:
        return "trajectory" in value and "exit_status" in optional_object(value, "info")
    signs = [name in value for name in _TASK_KEYS] + ["exit_status" in optional_object(value, "info")]
    if key == "history":  # SWE-agent's name for its messages, and other agents' too
        is_own = any(not _OWN_KEYS.isdisjoint(item) for item in value[key])
        signs += [is_own or not any(map(tool_kind, tool_names(value)))]
    return any(signs) or bool({name.lower() for name in tool_names(value)} & (_SHELL_TOOLS | _FILE_TOOLS))


def steps_of(value: dict[str, Any]) -> list[Step]:
    """The run's steps without terminal noise. Raises Dropped: no_trajectory, or malformed."""
    events = events_of(value)
    if events is not None:
        steps = list(_of_events(events))
    elif isinstance(value.get("trajectory"), list) and not any(_has_role(item) for item in value["trajectory"]):
        steps = [agent_step(step) for step in objects_of(value, "trajectory")]
    else:
        steps = list(transcript_of(value, plain_fences=True).steps) if message_key(value) else []
        if not steps:
            raise Dropped("no_trajectory", "neither steps, nor events, nor messages with actions")
    return [replace(step, thought=_clean(step.thought), output=_clean(step.output)) for step in steps]


def first_prompt(value: dict[str, Any]) -> str:
    """The text of the first user message that is no demonstration, in messages or events."""
    for key in ("history", *MESSAGE_KEYS):
        items = value.get(key)
        for item in items if isinstance(items, list) else []:
            if not isinstance(item, dict) or item.get("is_demo"):
                continue
            if item.get("role") == "user":
                return _text_or_nothing(item)
            if item.get("action") == "message" and item.get("source") == "user":
                return str(optional_object(item, "args").get("content", ""))
    return ""


def agent_step(step: dict[str, Any]) -> Step:
    """A step of SWE-agent; what has the wrong type counts as absent."""
    thought, action, observation = (
        text if isinstance(text := step.get(key), str) else "" for key in ("thought", "action", "observation")
    )
    return Step(thought=thought, tool="bash", arguments={"command": action}, output=observation)


def events_of(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    """OpenHands events under `history` or `trajectory`; older ones come in pairs of action and observation."""
    for key in ("history", "trajectory"):
        items = value.get(key)
        if isinstance(items, list) and items:
            flat = [event for item in items for event in (item if isinstance(item, list) else [item])]
            if all(isinstance(event, dict) for event in flat) and any(_is_event(event) for event in flat):
                return flat
    return None


def _is_event(item: dict[str, Any]) -> bool:
    return isinstance(item.get("args"), dict) and isinstance(item.get("action"), str) and "observation" not in item


def _of_events(events: list[dict[str, Any]]) -> Iterator[Step]:
    """One step an action of the agent; an observation belongs to the action it names as its cause, else to the last."""
    steps: dict[int | str, Step] = {}
    key: int | str
    for number, event in enumerate(events):
        action, observation = event.get("action"), event.get("observation")
        if isinstance(action, str) and event.get("source") != "user":
            arguments = dict(optional_object(event, "args"))
            thought = arguments.pop("thought", "")
            identity = event.get("id")
            key = identity if isinstance(identity, int | str) else f"event {number}"
            steps[key] = Step(thought=thought if isinstance(thought, str) else "", tool=action, arguments=arguments)
        elif isinstance(observation, str) and steps:
            cause, content = event.get("cause"), event.get("content")
            key = cause if isinstance(cause, int | str) and cause in steps else next(reversed(steps))
            if isinstance(content, str):
                steps[key] = replace(steps[key], output=content)
    yield from steps.values()


def _has_role(item: object) -> bool:
    return isinstance(item, dict) and "role" in item


def _text_or_nothing(message: dict[str, Any]) -> str:
    try:
        return text_of_message(message)
    except Dropped:
        return ""


def _clean(text: str) -> str:
    """Without carriage returns and the backspaces of terminal spinners."""
    return text.translate(_TERMINAL)
