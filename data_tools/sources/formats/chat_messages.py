"""Chat messages: OpenAI's and Anthropic's own form, ShareGPT, smolagents' chats, and published SWE-agent runs.

ShareGPT writes `from` and `value`; published SWE-agent runs write the role `ai` and the key `text`; OpenAI before tool
calls, and Qwen-Agent, write a call as `function_call`; LangChain writes the arguments of a call as `args`.
"""

from collections.abc import Iterator
from typing import Any

from acc_megatron.common.json_rows import BadJson, parse_json
from acc_megatron.data_tools.rows.fields import embedded_object
from acc_megatron.data_tools.sources.formats.content import ARGUMENT_KEYS, NAME_KEYS, thinking_of, with_data_as_text
from acc_megatron.data_tools.sources.formats.message_log import Message, MessageLog
from acc_megatron.data_tools.sources.formats.server_tools import without_server_tools
from acc_megatron.data_tools.sources.formats.tagged_run import with_tagged_runs

_ROLES = {
    "human": "user", "gpt": "assistant", "ai": "assistant", "function_call": "assistant", "function": "tool",
    "observation": "tool", "tool-response": "tool", "model": "assistant", "ipython": "tool", "developer": "system",
    "bot": "assistant", "chatbot": "assistant", "agent": "assistant", "tool_call": "assistant", "environment": "tool",
    "tool_result": "tool", "tool_response": "tool", "tool_output": "tool", "function_response": "tool",
    "chatgpt": "assistant",
}  # fmt: skip
_PLAIN_KEYS = {"role", "content", "tool_calls", "tool_call_id", "name"}
_TEXT_KEYS = ("value", "text", "system_prompt")
_SPELLINGS = {"toolCalls": "tool_calls", "toolCallId": "tool_call_id", "functionCall": "function_call"}
_THOUGHT_LISTS = ("thinking_blocks", "reasoning_details")  # LiteLLM, OpenRouter
_ID_KEYS = ("tool_call_id", "tool_use_id", "call_id", "toolCallId")
_RESULT_KEYS = ("output", "result", "observation", "response", "content", "text")


class ChatMessages(MessageLog):
    """Messages with `role` or `from`."""

    name = "chat messages"
    item_keys = frozenset(("role", "from"))

    def recognises_list(self, items: list[Message]) -> bool:
        """Whether any item has a role."""
        return any("role" in item or "from" in item for item in items)

    def messages(self, items: list[Message]) -> list[Message]:
        """Each message in OpenAI's form; a message with several calls and outputs in tags becomes several messages."""
        messages: list[Message] = []
        for message in (part for item in items for part in without_server_tools(item)):
            messages.append(openai_message(message))
            if message.get("tool_calls"):
                messages += _results_of_calls(message)
        return with_tagged_runs(messages)


def openai_message(message: Message) -> Message:
    """One message with its text under `content`, its calls under `tool_calls` and data of tool outputs as text."""
    if _is_plain(message):
        return message
    if not _SPELLINGS.keys().isdisjoint(message):
        message = {_SPELLINGS.get(key, key): value for key, value in message.items()}
    role = message.get("role", message.get("from"))
    role = role.strip().lower() if isinstance(role, str) else role
    plain: dict[str, Any] = message | {"role": _ROLES.get(role, role) if isinstance(role, str) else role}
    if message.get("content") is None:
        plain["content"] = next((message[key] for key in _TEXT_KEYS if isinstance(message.get(key), str)), "")
    call = message.get("function_call")
    if role in ("function_call", "tool_call") and (call := embedded_object(plain["content"])):
        plain["content"] = ""
    if isinstance(call, dict) and not message.get("tool_calls"):
        plain["tool_calls"] = [{"function": call}]
    if isinstance(calls := _list_of_calls(plain.get("tool_calls")), list):
        plain["tool_calls"] = [_openai_call(call) for call in calls]
    if plain["role"] == "assistant":
        _move_thoughts(plain)
    if plain["role"] == "tool" and (results := _results_of(plain["content"])):
        plain |= {"role": "user", "content": results}
    elif plain["role"] == "tool":
        plain["content"] = with_data_as_text(plain["content"])
    elif isinstance(content := plain["content"], list):
        plain["content"] = [_with_text_result(part) for part in content]
        if (thinking := thinking_of(content)) and not plain.get("reasoning_content"):
            plain["reasoning_content"] = thinking
    return plain


def _is_plain(message: Message) -> bool:
    """Whether a message is in OpenAI's form already, with a text and no reasoning."""
    content, role, calls = message.get("content"), message.get("role"), message.get("tool_calls")
    if not isinstance(content, str) or not message.keys() <= _PLAIN_KEYS:
        return False
    if role == "assistant":
        has_plain_calls = not calls or (isinstance(calls, list) and all(map(_is_plain_call, calls)))
        return has_plain_calls and "</think>" not in content
    return role in ("user", "system", "tool") and not calls


def _is_plain_call(call: object) -> bool:
    return isinstance(call, dict) and _is_plain_function(call.get("function"))


def _is_plain_function(function: object) -> bool:
    return isinstance(function, dict) and "arguments" in function and isinstance(function.get("name"), str)


def _move_thoughts(message: Message) -> None:
    """Open a `<think>` that the chat template opened, and keep reasoning of other keys as `reasoning_content`."""
    content = message["content"]
    if isinstance(content, str) and "</think>" in content and "<think>" not in content:
        message["content"] = f"<think>{content}"
    thoughts = (thinking_of(message.get(key)) for key in _THOUGHT_LISTS)
    if not message.get("reasoning_content") and (thought := next((text for text in thoughts if text), "")):
        message["reasoning_content"] = thought


def _results_of(content: object) -> list[Message]:
    """Anthropic's parts for a list of outputs of which each names its call; empty for anything else."""
    items = content if isinstance(content, list) else []
    parts = []
    for item in items:
        named = next((item[key] for key in _ID_KEYS if key in item), None) if isinstance(item, dict) else None
        key = next((key for key in _RESULT_KEYS if key in item), None) if isinstance(named, str) else None
        if key is None:
            return []
        parts.append({"type": "tool_result", "tool_use_id": named, "content": with_data_as_text(item[key])})
    return parts


def _results_of_calls(message: Message) -> Iterator[Message]:
    """A tool message for each call that has its output inside."""
    calls = _list_of_calls(message.get("tool_calls"))
    for call in calls if isinstance(calls, list) else []:
        key = next((key for key in _RESULT_KEYS if key in call), None) if isinstance(call, dict) else None
        if key is not None:
            yield openai_message({"role": "tool", "tool_call_id": str(call.get("id") or ""), "content": call[key]})


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
    if _is_plain_function(function):
        return call
    key = next((key for key in ("arguments", *ARGUMENT_KEYS) if key in function), None)
    names = (*(function.get(key) for key in NAME_KEYS), call.get("function"))
    name = next((name for name in names if isinstance(name, str)), None)
    if key is None or name is None:
        return call
    return {"id": call.get("id") or "", "function": {"name": name, "arguments": function[key]}}


def _with_text_result(part: object) -> object:
    if isinstance(part, dict) and part.get("type") == "tool_result":
        return part | {"content": with_data_as_text(part.get("content"))}
    return part
