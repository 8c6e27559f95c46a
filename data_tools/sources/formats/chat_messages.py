"""Chat messages: OpenAI's and Anthropic's own form, ShareGPT, smolagents' chats, and published SWE-agent runs.

ShareGPT writes `from` and `value`; published SWE-agent runs write the role `ai` and the key `text`; OpenAI before tool
calls, and Qwen-Agent, write a call as `function_call`; LangChain writes the arguments of a call as `args`.
"""

from typing import Any

from acc_megatron.common.json_rows import BadJson, parse_json
from acc_megatron.data_tools.rows.fields import embedded_object
from acc_megatron.data_tools.sources.formats.content import thinking_of, with_data_as_text
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog
from acc_megatron.data_tools.sources.formats.tagged_run import with_tagged_runs

_ROLES = {
    "human": "user", "gpt": "assistant", "ai": "assistant", "function_call": "assistant", "function": "tool",
    "observation": "tool", "tool-response": "tool", "model": "assistant", "ipython": "tool", "developer": "system",
}  # fmt: skip
_TEXT_KEYS = ("value", "text", "system_prompt")
_ARGUMENT_KEYS = (
    "args", "parameters", "params", "input", "tool_input", "tool_args", "tool_arguments", "kwargs", "action_input",
)  # fmt: skip
_NAME_KEYS = ("name", "tool_name", "tool", "function_name", "action")


class ChatMessages(MessageLog):
    """Messages with `role` or `from`."""

    name = "chat messages"

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether any item has a role."""
        return any("role" in item or "from" in item for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        """Each message in OpenAI's form; a message with several calls and outputs in tags becomes several messages."""
        return with_tagged_runs([openai_message(item) for item in items])


def openai_message(message: Message) -> Message:
    """One message with its text under `content`, its calls under `tool_calls` and data of tool outputs as text."""
    role = message.get("role", message.get("from"))
    plain: dict[str, Any] = message | {"role": _ROLES.get(role, role) if isinstance(role, str) else role}
    if message.get("content") is None:
        plain["content"] = next((message[key] for key in _TEXT_KEYS if isinstance(message.get(key), str)), "")
    call = message.get("function_call")
    if role == "function_call" and (call := embedded_object(plain["content"])):
        plain["content"] = ""
    if isinstance(call, dict) and not message.get("tool_calls"):
        plain["tool_calls"] = [{"function": call}]
    if isinstance(calls := _list_of_calls(plain.get("tool_calls")), list):
        plain["tool_calls"] = [_openai_call(call) for call in calls]
    if plain["role"] == "tool":
        plain["content"] = with_data_as_text(plain["content"])
    elif isinstance(content := plain["content"], list):
        plain["content"] = [_with_text_result(part) for part in content]
        if (thinking := thinking_of(content)) and not plain.get("reasoning_content"):
            plain["reasoning_content"] = thinking
    return plain


def _list_of_calls(calls: object) -> object:
    """The calls, also of the JSON text of a list."""
    if isinstance(calls, str) and calls.lstrip().startswith("["):
        try:
            return parse_json(calls.strip().encode())
        except (BadJson, UnicodeEncodeError):  # SWE-agent writes the repr of its calls
            return calls
    return calls


def _openai_call(call: object) -> object:
    """A call with its arguments under `arguments` of `function`; any other value stays as it is."""
    if not isinstance(call, dict):
        return call
    function = call["function"] if isinstance(call.get("function"), dict) else call
    if "arguments" in function and isinstance(function.get("name"), str):
        return call
    key = next((key for key in ("arguments", *_ARGUMENT_KEYS) if key in function), None)
    names = (*(function.get(key) for key in _NAME_KEYS), call.get("function"))
    name = next((name for name in names if isinstance(name, str)), None)
    if key is None or name is None:
        return call
    return {"id": call.get("id") or "", "function": {"name": name, "arguments": function[key]}}


def _with_text_result(part: object) -> object:
    if isinstance(part, dict) and part.get("type") == "tool_result":
        return part | {"content": with_data_as_text(part.get("content"))}
    return part
