"""Events of OpenHands' SDK; openhands_events.py reads the events of OpenHands before its SDK."""

from acc_megatron.data_tools.rows.fields import optional_object
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog

_KINDS = {"ActionEvent", "ObservationEvent", "MessageEvent", "SystemPromptEvent"}


class OpenHandsSdk(MessageLog):
    """Actions of one response become one assistant message; each output names its call."""

    name = "OpenHands SDK events"
    item_keys = frozenset(("kind",))

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether any item is an event of the SDK."""
        return any(item.get("kind") in _KINDS for item in items if isinstance(item.get("kind"), str))

    def messages(self, items: list[Message]) -> list[Message]:
        """The events as OpenAI messages."""
        messages: list[Message] = []
        calls: list[Message] = []  # of the last action's message
        response = None
        for event in items:
            kind = event.get("kind")
            if kind == "SystemPromptEvent":
                messages.append({"role": "system", "content": text_of_parts(event.get("system_prompt"))})
            elif kind == "MessageEvent":
                message = optional_object(event, "llm_message")
                role = {"role": "assistant" if event.get("source") == "agent" else "user"}
                messages.append(role | message | {"content": text_of_parts(message.get("content"))})
            elif kind == "ActionEvent":
                if not (response and event.get("llm_response_id") == response):
                    response, calls = event.get("llm_response_id"), []
                    messages.append(_assistant_message(event, calls))
                calls.append(_call(event))
            elif kind in ("ObservationEvent", "UserRejectObservation", "AgentErrorEvent"):
                messages.append(_tool_output(event))
        return messages


def _assistant_message(event: Message, calls: list[Message]) -> Message:
    thoughts = {"content": text_of_parts(event.get("thought")), "reasoning_content": event.get("reasoning_content")}
    return {"role": "assistant", "tool_calls": calls} | thoughts


def _tool_output(event: Message) -> Message:
    observation = optional_object(event, "observation")
    texts = (observation.get("content"), observation.get("output"), event.get("error"), event.get("rejection_reason"))
    output = next((text for found in texts if (text := text_of_parts(found))), "")
    return {"role": "tool", "tool_call_id": event.get("tool_call_id"), "content": output}


def _call(event: Message) -> Message:
    """The call as the model wrote it if the event keeps it, otherwise the action with its arguments."""
    made, action = optional_object(event, "tool_call"), optional_object(event, "action")
    arguments = made.get("arguments") or {name: value for name, value in action.items() if name != "kind"}
    name = event.get("tool_name") or made.get("name")
    return {"id": event.get("tool_call_id"), "function": {"name": name, "arguments": arguments}}
