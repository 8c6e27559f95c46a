"""The turns of an OpenHands run, from its events: actions of the agent become calls, observations tool turns."""

from typing import Any

from acc_megatron.data_tools.conversation import Role, Turn, agent_turn, call_text
from acc_megatron.data_tools.sources.fields import embedded_object, optional_object

# what OpenHands notes beside a call's own arguments
_BOOKKEEPING = {
    "thought", "hidden", "blocking", "is_static", "is_input", "is_confirmed", "confirmation_state", "security_risk",
    "translated_ipython_code", "impl_source", "task_completed", "final_thought", "outputs", "kernel_init_code", "cwd",
    "wait_for_response", "image_urls", "file_urls",
}  # fmt: skip


def event_turns(events: list[dict[str, Any]], question: str) -> list[Turn]:
    """Turns in the order of the events; `question` opens a run whose log keeps no message of the user."""
    turns: list[Turn] = []
    is_begun = False
    for event in events:
        action, observation = event.get("action"), event.get("observation")
        if isinstance(action, str):
            made = _action_turns(event, action, is_begun=is_begun)
            is_begun = is_begun or any(turn.role == "assistant" for turn in made)
            turns += made
        elif isinstance(observation, str) and isinstance(event.get("content"), str) and turns:
            turns.append(Turn(role="tool", text=event["content"]))
    if not any(turn.role == "user" for turn in turns):
        start = next((number for number, turn in enumerate(turns) if turn.role != "system"), len(turns))
        turns.insert(start, Turn(role="user", text=question))
    return turns


def _action_turns(event: dict[str, Any], action: str, *, is_begun: bool) -> list[Turn]:
    arguments = optional_object(event, "args")
    content, thought = (str(arguments.get(name) or "") for name in ("content", "thought"))
    if action == "system":
        return [Turn(role="system", text=content)]
    if event.get("source") == "user":
        role: Role = "tool" if is_begun else "user"
        return [Turn(role=role, text=content)] if action == "message" and content.strip() else []
    if event.get("source") == "environment":
        return []  # what OpenHands itself does, as changing the agent's state
    if action == "message":
        return [agent_turn(content, reasoning=thought)]
    if action == "finish":
        outputs = optional_object(arguments, "outputs")
        return [agent_turn(str(arguments.get("final_thought") or outputs.get("content") or thought))]
    if action == "think":
        return [agent_turn(calls=(call_text("think", {"thought": thought}),))]
    return [agent_turn(reasoning=thought, calls=(_call(event, action, arguments),))]


def _call(event: dict[str, Any], action: str, arguments: dict[str, Any]) -> str:
    """The call as the model made it, where the event keeps that, else the action with its arguments."""
    metadata = optional_object(event, "tool_call_metadata")
    choices = optional_object(metadata, "model_response").get("choices")
    for choice in choices if isinstance(choices, list) else []:
        listed = optional_object(choice, "message").get("tool_calls") if isinstance(choice, dict) else None
        for call in listed if isinstance(listed, list) else []:
            if isinstance(call, dict) and call.get("id") == metadata.get("tool_call_id"):
                function = optional_object(call, "function")
                return call_text(str(function.get("name")), embedded_object(function.get("arguments")))
    kept = {name: value for name, value in arguments.items() if name not in _BOOKKEEPING and value is not None}
    return call_text(action, kept)
