"""The steps of a run that is a list of OpenAI messages.

Calls are read from `tool_calls`, from Anthropic content parts, or from the text (text_calls.py). An output belongs to
the call whose id it names, otherwise to the first open call of the tool that it names, otherwise to the first open
call. A user message after an agent's message without a call is a new request.
"""

import re
from collections.abc import Iterator
from typing import Any

from acc_megatron.data_tools.rows.fields import embedded_object, literal_object, objects_in, tagged
from acc_megatron.data_tools.sources.formats.content import text_of_parts
from acc_megatron.data_tools.sources.formats.log_format import FINISH_TOOLS, Fences, Request, Step, Transcript
from acc_megatron.data_tools.sources.formats.python_calls import called_in_code
from acc_megatron.data_tools.sources.formats.text_calls import OPENINGS, calls_in_text, text_without_calls
from acc_megatron.errors import Dropped

THOUGHT_KEYS = ("thought", "reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = (None, "text", "input_text", "output_text")
_OUTPUT_TAGS = ("tool_response", "information", "observation", "function_results")
_OBSERVATION = re.compile(r"\A(?:Observation:|OBSERVATION:\n?)")
_MAX_TOOL_NAMES = 50
# messages of frameworks to an agent that made no call
_REMINDER = re.compile(
    r"\s*(?:<|Observation|EXECUTION RESULT|(?:please )?(?:continue|proceed|keep (?:going|working))\b)"
    r"|.{0,200}\b(?:previous (?:action|response|message|output)|tool call|function call|valid action|context length)\b",
    re.IGNORECASE | re.DOTALL,
)


def transcript_of_messages(messages: list[dict[str, Any]], fences: Fences = "") -> Transcript:
    """The run of a list of messages without its demonstrations. Raises Dropped('malformed')."""
    prompt, final, has_begun = "", "", False
    steps: list[Step] = []
    requests: list[Request] = []
    open_ids: dict[int, str] = {}  # step number -> id of its call, for calls without an output
    can_ask = False  # whether the last message was the agent's and waits for no output
    for message in messages:
        role, text = message.get("role"), text_of_message(message)
        if not isinstance(role, str):
            raise Dropped("malformed", f"the role of a message must be a string, got {role!r:.80}")
        if message.get("is_demo"):
            continue
        if role == "assistant":
            has_begun = True
            calls = _calls(message, fences)
            thought = _thought(message, text, bool(calls), fences)
            if calls and final:  # the agent's message before this one ends without a call
                thought = "\n\n".join(part for part in (text_without_calls(final), thought) if part)
            for i, (call_id, name, arguments) in enumerate(calls):
                open_ids[len(steps)] = call_id
                step = Step(thought="" if i else thought, tool=name, arguments=arguments_of(arguments))
                steps.append(step)
            final = "" if calls else _with_thought(message, text)
            is_broken_call = not calls and any(opening in text for opening in OPENINGS)
            can_ask = not is_broken_call and all(steps[i].tool.lower() in FINISH_TOOLS for i in open_ids)
        elif not has_begun:
            prompt = text if role == "user" or not prompt else prompt
        elif role == "user" and can_ask and is_request(message, text):
            open_ids.clear()
            steps.append(Step(arguments={}, output=text))  # it can also be the output of a call in an unknown syntax
            requests.append(Request(text, len(steps)))
            final, can_ask = "", False
        else:
            can_ask = False
            for answered_id, output in _outputs(message, text):
                _add_output(steps, open_ids, answered_id, message.get("name", message.get("tool_name")), output)
            final = ""
    return Transcript(prompt=prompt, steps=tuple(steps), final=final, later_requests=tuple(requests))


def is_request(message: dict[str, Any], text: str) -> bool:
    """Whether a user message asks something, and is neither a tool output nor a reminder of a framework."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    has_result = any(isinstance(part, dict) and part.get("type") == "tool_result" for part in parts)
    return bool(text.strip()) and not has_result and _REMINDER.match(text) is None


def called_tools(messages: list[dict[str, Any]]) -> set[str]:
    """The names of the tools that messages call, without other checks of the messages."""
    names: set[str] = set()
    for message in messages:
        names.update(name for _, name, _ in _calls(message))
        if len(names) >= _MAX_TOOL_NAMES:
            break
    return names


def text_of_message(message: dict[str, Any]) -> str:
    """The text of a message whose content is text, a list of parts, or null. Raises Dropped('malformed')."""
    content = message.get("content")
    if isinstance(content, list):
        return text_of_parts([part for part in content if _is_text(part)])
    if content is None:
        return ""
    if not isinstance(content, str):
        raise Dropped("malformed", f"the content of a message must be text, got {type(content).__name__}")
    return content


def arguments_of(value: object) -> dict[str, Any]:
    """The arguments of a call: an object, its text in JSON or Python, or any other value under the name `input`."""
    found = embedded_object(value) or (literal_object(value.strip()) if isinstance(value, str) else {})
    return found or ({} if value in (None, "", {}) else {"input": value})


def _is_text(part: object) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and part.get("type") in _TEXT_PARTS)


def _add_output(steps: list[Step], open_ids: dict[int, str], answered_id: str, tool: object, output: str) -> None:
    """Give an output to the call it names, otherwise to an open call, otherwise to a step of its own."""
    by_id = [i for i, call_id in open_ids.items() if answered_id and call_id == answered_id]
    by_tool = [i for i in open_ids if steps[i].tool == tool]
    index = next(iter((*by_id, *by_tool, *open_ids)), None)
    if index is None:
        steps.append(Step(arguments={}, output=output))
    else:
        del open_ids[index]
        steps[index] = steps[index].with_output(output)


def _outputs(message: dict[str, Any], text: str) -> Iterator[tuple[str, str]]:
    """(call id, output) of every tool output in a message that is not the assistant's."""
    content = message.get("content")
    results = objects_in(content)
    results = [part for part in results if part.get("type") == "tool_result"]
    if results:
        yield from ((str(part.get("tool_use_id", "")), _output_text(part, text_of_message(part))) for part in results)
    elif "<" in text and (responses := next((found for tag in _OUTPUT_TAGS if (found := tagged(text, tag))), [])):
        yield from (("", response.strip("\n")) for response in responses)
    else:
        ids = message.get("tool_call_ids")  # SWE-agent's history
        named = message.get("tool_call_id") or (ids[0] if isinstance(ids, list) and ids else "")
        yield str(named), _output_text(message, _OBSERVATION.sub("", text, count=1))


def _output_text(message: dict[str, Any], text: str) -> str:
    """An output; one that its message marks as an error begins as errors do."""
    is_error = message.get("is_error") is True or message.get("status") == "error"
    return f"Error: {text}" if is_error and not text.lstrip().lower().startswith("error") else text


def _calls(message: dict[str, Any], fences: Fences = "") -> list[tuple[str, str, object]]:
    """(id, tool, arguments as they are written) of every call in an assistant message."""
    listed, content = message.get("tool_calls"), message.get("content")
    if isinstance(listed, list) and listed:
        return [_listed_call(call) for call in listed if isinstance(call, dict)]
    parts = objects_in(content)
    if uses := [part for part in parts if part.get("type") == "tool_use"]:
        return [(str(part.get("id", "")), str(part.get("name", "")), part.get("input")) for part in uses]
    if message.get("role") != "assistant":
        return []
    return [("", *called_in_code(*call)) for call in calls_in_text(text_of_parts(content), fences)]


def _listed_call(call: dict[str, Any]) -> tuple[str, str, object]:
    function = call.get("function")
    function = function if isinstance(function, dict) else call
    return str(call.get("id", "")), *called_in_code(str(function.get("name", "")), function.get("arguments"))


def _with_thought(message: dict[str, Any], text: str) -> str:
    """The text of a closing message with the reasoning under its own key in `<think>`, unless the text has it."""
    thought = "\n\n".join(dict.fromkeys(_separate_thoughts(message)))
    return f"<think>\n{thought}\n</think>\n\n{text}" if thought and text.strip() and "<think>" not in text else text


def _separate_thoughts(message: dict[str, Any]) -> list[str]:
    """Reasoning under its own keys."""
    separate = [message.get(key) for key in THOUGHT_KEYS]
    return [part for part in separate if isinstance(part, str) and part.strip()]


def _thought(message: dict[str, Any], text: str, has_calls: bool, fences: Fences) -> str:
    """Reasoning under its own key, and the text before the calls; a message without calls has no thought."""
    parts = _separate_thoughts(message)
    if has_calls and (before := text_without_calls(text, fences)):
        parts.append(before)
    return "\n\n".join(dict.fromkeys(parts))
