"""Calls of tools in Python code: the agents of smolagents and CodeAct have no other tool than Python."""

import re

from acc_megatron.data_tools.rows.fields import embedded_object, tagged

_CODE_TOOLS = {"python_interpreter", "python", "execute", "ipython", "code_interpreter", "run_python"}
_CODE_KEYS = ("code", "input", "command")
# the call of a function, but not of a method (`re.search`), and its first argument if that is a string
_CALL = re.compile(
    r"(?<![\w.])(?<!def )(\w{0,40}(?:search|visit|fetch|browse|wikipedia)\w{0,40}|final_answer)"
    r"\((?:\s{0,20}\w{1,30}\s?=)?\s{0,20}(?:(['\"])((?:(?!\2).)*)\2)?"
)
_FENCE = re.compile(r"^Code:\s{1,4}```(?:py|python)\n(.*?)\n```", re.MULTILINE | re.DOTALL)


def called_in_code(tool: str, arguments: object) -> tuple[str, object]:
    """The first search or visit that the code of a Python tool calls, otherwise `final_answer`, otherwise the tool."""
    if tool.lower() not in _CODE_TOOLS:
        return tool, arguments
    found = embedded_object(arguments)
    code = next((found[key] for key in _CODE_KEYS if isinstance(found.get(key), str)), arguments)
    calls = list(_CALL.finditer(code)) if isinstance(code, str) else []
    if not calls:
        return tool, arguments
    call = next((call for call in calls if call[1] != "final_answer"), calls[0])
    return call[1], {"input": call[3] or ""}


def code_blocks(text: str) -> list[str]:
    """The code of `<execute>` (CodeAct), of `<code>` after a thought, and of a fence after `Code:` (smolagents)."""
    if "<execute>" in text:
        return tagged(text, "execute")
    if text.lstrip().startswith("Thought") and "<code>\n" in text:
        return tagged(text, "code")
    return _FENCE.findall(text) if "Code:" in text else []
