"""Qwen3-Coder: ChatML turns without thinking; tools, calls and their arguments are written as XML.

Source: `chat_template` of Qwen/Qwen3-Coder-30B-A3B-Instruct, in the version that renders lists as JSON. It ignores
`reasoning_content`; so that no reasoning is lost, it is written as text before the reply.
"""

import json
from typing import Any

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.convert.templates.qwen3 import write_with_call_tags
from acc_megatron.data_tools.convert.templates.qwen3_instruct_2507 import Qwen3Instruct2507, without_thinking
from acc_megatron.data_tools.convert.templates.template import Writer
from acc_megatron.data_tools.rows.fields import embedded_object
from acc_megatron.errors import Dropped

DEFAULT_SYSTEM = "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks."
TOOLS_OPENING = "\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>"
TOOLS_CLOSING = """
</tools>

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within \
<tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell \
the user about function calls
</IMPORTANT>"""


class Qwen3Coder(Qwen3Instruct2507):
    """The template of Qwen/Qwen3-Coder-30B-A3B-Instruct and its siblings."""

    name = "qwen3-coder"
    summary = "no thinking, tools and calls as XML"

    def _write_assistant(self, writer: Writer, turn: Turn, *, is_last: bool) -> None:
        if not turn.tool_calls:
            super()._write_assistant(writer, turn, is_last=is_last)
            return
        self.write_generation_prompt(writer)
        turn = without_thinking(turn)
        supervised = turn.supervised
        # the newline before the first call is part of the prompt where no text precedes it
        text = f"{stripped}\n\n" if (stripped := turn.text.strip()) else ""
        for number, call in enumerate(turn.tool_calls):
            writer.text("\n" if number else text, supervised=supervised)
            writer.control("<tool_call>", supervised=supervised).text(f"\n{call_xml(call)}\n", supervised=supervised)
            writer.control("</tool_call>", supervised=supervised)
        writer.control("<|im_end|>", supervised=supervised).text("\n")

    def _write_tools(self, writer: Writer, turn: Turn) -> None:
        writer.control("<|im_start|>").text(f"system\n{turn.text or DEFAULT_SYSTEM}{TOOLS_OPENING}")
        for tool in turn.tools:
            writer.text(tool_xml(tool))
        write_with_call_tags(writer, TOOLS_CLOSING)
        writer.control("<|im_end|>").text("\n")

    def _write_tool(self, writer: Writer, turn: Turn, *, is_first: bool, is_last: bool) -> None:
        if is_first:
            writer.control("<|im_start|>").text("user\n")
        writer.control("<tool_response>").text(f"\n{turn.text}\n").control("</tool_response>").text("\n")
        if is_last:
            writer.control("<|im_end|>").text("\n")


def call_xml(call: str) -> str:
    """A call as `<function=NAME>` with its parameters; a call that already has this form stays as it is.

    Raises Dropped('unreadable_tool_call') for a call that is neither this nor a JSON object with name and arguments.
    """
    if call.lstrip().startswith("<function="):
        return call.strip()
    value = embedded_object(call)
    arguments = value.get("arguments", {})
    if not isinstance(value.get("name"), str) or not isinstance(arguments, dict):
        raise Dropped("unreadable_tool_call", f"the call {call[:200]!r} has no text 'name' or no object 'arguments'")
    parameters = "".join(f"<parameter={name}>\n{_plain(item)}\n</parameter>\n" for name, item in arguments.items())
    return f"<function={value['name']}>\n{parameters}</function>"


def tool_xml(tool: str) -> str:
    """The definition of one tool. Raises Dropped('unreadable_tool') if it is not a JSON object with a name."""
    value = embedded_object(tool)
    function: dict[str, Any] = value["function"] if isinstance(value.get("function"), dict) else value
    if "name" not in function:
        raise Dropped("unreadable_tool", f"the tool definition {tool[:200]!r} is not a JSON object with a 'name'")
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    parts = [f"\n<function>\n<name>{function['name']}</name>", _description(function), "\n<parameters>"]
    for name, fields in (properties if isinstance(properties, dict) else {}).items():
        parts.append(f"\n<parameter>\n<name>{name}</name>")
        if isinstance(fields, dict):
            parts += (f"\n<type>{fields['type']}</type>",) if "type" in fields else ()
            parts += (_description(fields), _other_keys(fields, "name", "type", "description"))
        parts.append("\n</parameter>")
    parts += (_other_keys(parameters, "type", "properties"), "\n</parameters>")
    parts += (_other_keys(function, "type", "name", "description", "parameters"), "\n</function>")
    return "".join(parts)


def _description(value: dict[str, Any]) -> str:
    return f"\n<description>{str(value['description']).strip()}</description>" if "description" in value else ""


def _other_keys(value: object, *known: str) -> str:
    items = value.items() if isinstance(value, dict) else ()
    return "".join(f"\n<{key}>{_plain(item)}</{key}>" for key, item in items if key not in known)


def _plain(value: object) -> str:
    """Objects and lists as JSON, anything else as Python's `str` writes it, like the official template."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
