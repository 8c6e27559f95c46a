"""Trajectories in ATIF, the interchange format of Harbor and Terminal-Bench: `steps` of system, user and agent.

Source: docs/rfcs/0001-trajectory-format.md of Harbor.
"""

from typing import Any

from acc_megatron.data_tools.rows.fields import objects_in, optional_object
from acc_megatron.data_tools.sources.formats.chat_messages import openai_message
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog

_ROLES = {"system": "system", "user": "user", "agent": "assistant"}


class Atif(MessageLog):
    """A step of the agent is one message; the results of its observation are the outputs of its calls."""

    name = "ATIF trajectory"
    keys = ("steps",)
    item_keys = frozenset(("source",))

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether every item says who made it, and any is the agent's."""
        sources = [item.get("source") for item in items]
        return (
            "agent" in sources
            and all(isinstance(source, str) and source in _ROLES for source in sources)
            and "message" in items[0]
        )

    def messages(self, items: list[Message]) -> list[Message]:
        """The steps as OpenAI messages."""
        messages: list[Message] = []
        for item in items:
            message: Message = {"role": _ROLES[item["source"]], "content": item.get("message")}
            if item["source"] == "agent":
                calls = [_call(call) for call in objects_in(item.get("tool_calls"))]
                message |= {"reasoning_content": item.get("reasoning_content"), "tool_calls": calls}
            messages.append(openai_message(message))
            for result in objects_in(optional_object(item, "observation").get("results")):
                output = {
                    "role": "tool",
                    "tool_call_id": result.get("source_call_id"),
                    "content": result.get("content"),
                }
                messages.append(openai_message(output))
        return messages


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = {"name": call.get("function_name"), "arguments": call.get("arguments")}
    return {"id": call.get("tool_call_id"), "function": function}
