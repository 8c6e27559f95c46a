"""Events of OpenHands before its SDK: actions of the agent become calls, observations become their outputs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from acc_megatron.data_tools.conversation import Role, Turn, agent_turn, call_text
from acc_megatron.data_tools.rows.fields import embedded_object, optional_object
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.log_format import Fences, LogFormat, Step, Transcript
from acc_megatron.data_tools.sources.formats.message_turns import observation_text
from acc_megatron.data_tools.sources.formats.swe_agent import first_prompt

# fields that OpenHands adds to the arguments of a call
_ADDED_FIELDS = {
    "thought", "hidden", "blocking", "is_static", "is_input", "is_confirmed", "confirmation_state", "security_risk",
    "translated_ipython_code", "impl_source", "task_completed", "final_thought", "outputs", "kernel_init_code", "cwd",
    "wait_for_response", "image_urls", "file_urls", "images_urls", "keep_prompt", "action_risk",
}  # fmt: skip


class OpenHandsEvents(LogFormat):
    """A list of events under `history` or `trajectory`; older logs list pairs of action and observation."""

    name = "OpenHands events"
    agent = "swe"

    def recognises(self, value: dict[str, Any]) -> bool:
        """Whether one of the two keys contains objects of which at least one is an action with arguments."""
        return _events(value) is not None

    def transcript(self, value: dict[str, Any], *, fences: Fences = "") -> Transcript:
        """A step for each action of the agent."""
        events = _events(value) or []
        asked = (str(optional_object(event, "args").get("content", "")) for event in events if _is_request(event))
        return Transcript(prompt=first_prompt(value) or next(asked, ""), steps=tuple(_steps(events)), final="")

    def turns(self, value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
        """The turns in the order of the events; the trajectory's question opens a log without a user message."""
        turns: list[Turn] = []
        has_begun = False
        for event in _events(value) or []:
            action, observation = event.get("action"), event.get("observation")
            if isinstance(action, str):
                made = _action_turns(event, action, has_begun=has_begun)
                has_begun = has_begun or any(turn.role == "assistant" for turn in made)
                turns += made
            elif isinstance(observation, str) and isinstance(event.get("content"), str) and has_begun:
                turns.append(Turn(role="tool", text=observation_text(event["content"])))
        if not any(turn.role == "user" for turn in turns):
            start = next((number for number, turn in enumerate(turns) if turn.role != "system"), len(turns))
            turns.insert(start, Turn(role="user", text=trajectory.question))
        return turns


def _events(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    for key in ("history", "trajectory", "events"):
        items = value.get(key)
        if isinstance(items, list) and items:
            flat = [event for item in items for event in (item if isinstance(item, list) else [item])]
            if not all(isinstance(event, dict) for event in flat):
                continue
            if any(_is_action(event) for event in flat):
                return flat
            if all(map(_is_bare, flat)) and any("thought" in event for event in flat):
                return [_with_arguments(event, number) for number, event in enumerate(flat)]
    return None


def _is_bare(event: dict[str, Any]) -> bool:
    """Whether an event is an action or an observation without an envelope, as the resolver of OpenHands kept them."""
    return isinstance(event.get("action"), str) != isinstance(event.get("observation"), str) and "source" not in event


def _with_arguments(event: dict[str, Any], number: int) -> dict[str, Any]:
    """An event in its envelope; the first one is the user's."""
    if "action" not in event:
        return event
    arguments = {name: value for name, value in event.items() if name != "action"}
    return {"action": event["action"], "args": arguments, "source": "agent" if number else "user"}


def _is_request(event: dict[str, Any]) -> bool:
    return event.get("action") == "message" and event.get("source") == "user"


def _is_action(item: dict[str, Any]) -> bool:
    return isinstance(item.get("args"), dict) and isinstance(item.get("action"), str) and "observation" not in item


def _steps(events: list[dict[str, Any]]) -> Iterator[Step]:
    """An observation belongs to the action it names as its cause, otherwise to the last action."""
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


def _action_turns(event: dict[str, Any], action: str, *, has_begun: bool) -> list[Turn]:
    arguments = optional_object(event, "args")
    content, thought = (str(arguments.get(name) or "") for name in ("content", "thought"))
    if action == "system":
        return [Turn(role="system", text=content)]
    if event.get("source") == "user":
        role: Role = "tool" if has_begun else "user"
        return [Turn(role=role, text=content)] if action == "message" and content.strip() else []
    if event.get("source") == "environment":
        return []  # an action of OpenHands itself, for example a change of the agent's state
    if action == "message":
        return [agent_turn(content, reasoning=thought)]
    if action == "finish":
        outputs = optional_object(arguments, "outputs")
        return [agent_turn(str(arguments.get("final_thought") or outputs.get("content") or thought))]
    if action == "think":
        return [agent_turn(calls=(call_text("think", {"thought": thought}),))]
    return [agent_turn(reasoning=thought, calls=(_call(event, action, arguments),))]


def _call(event: dict[str, Any], action: str, arguments: dict[str, Any]) -> str:
    """The call as the model wrote it if the event keeps it, otherwise the action with its arguments."""
    metadata = optional_object(event, "tool_call_metadata")
    choices = optional_object(metadata, "model_response").get("choices")
    for choice in choices if isinstance(choices, list) else []:
        listed = optional_object(choice, "message").get("tool_calls") if isinstance(choice, dict) else None
        for call in listed if isinstance(listed, list) else []:
            if isinstance(call, dict) and call.get("id") == metadata.get("tool_call_id"):
                function = optional_object(call, "function")
                return call_text(str(function.get("name")), embedded_object(function.get("arguments")))
    kept = {name: value for name, value in arguments.items() if name not in _ADDED_FIELDS and value is not None}
    return call_text(action, kept)
