"""Tool calls inside the text of an assistant message.

A text uses one syntax: the first in SYNTAXES that finds a call. Every syntax takes time linear in the text.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from acc_megatron.data_tools.rows.fields import embedded_object, literal_object, tagged
from acc_megatron.data_tools.sources.formats.content import ARGUMENT_KEYS, NAME_KEYS
from acc_megatron.data_tools.sources.formats.log_format import Fences
from acc_megatron.data_tools.sources.formats.python_calls import code_blocks

_ACTION = re.compile(r"^Action(?: \d{1,4})?:([\w .-]{1,80}?)(?:\[(.*)\])?[ \t]*$", re.MULTILINE)
_ANY_ACTION = re.compile(r"^Action(?: \d{1,4})?:", re.MULTILINE)
# LangChain's structured chat writes an object, also in a fence; others write a Python call
_ACTION_OBJECT = re.compile(r"^Action(?: \d{1,4})?:\s{0,8}(?:```(?:json)?\s{0,8})?(?=\{)", re.MULTILINE)
_ACTION_CALL = re.compile(r"^Action(?: \d{1,4})?:[ \t]*(\w{1,60})\((.*)\)[ \t]*$", re.MULTILINE)
_MAX_CALL_CHARACTERS = 1 << 16
_THOUGHT = re.compile(r"(?:Thought(?: \d{1,4})?|THOUGHT):|DISCUSSION:?[ \t]*\n")  # also of SWE-agent's first versions
_ACTION_INPUT = re.compile(r"\s{0,8}^Action Input(?: \d{1,4})?:[ \t]*", re.MULTILINE)
_OBSERVATION = "\nObservation"
# where gpt-oss begins a call, with and without its control tokens; what follows may be invented results
_HARMONY = ("<|start|>assistant<|channel|>commentary to=", "<|channel|>commentary to=", "assistantcommentary to=")
_PLAIN_FENCE = "```\n"
_FENCES = ("```bash\n", "```mswea_bash_command\n", "```sh\n")
_SQL_FENCE = re.compile(r"^```(?:sql|sqlite|postgresql|mysql)[ \t]*\n", re.MULTILINE | re.IGNORECASE)
_COMMAND_TAGS = ("execute_bash", "execute_ipython")
_INVOKE, _PARAMETER = '<invoke name="', '<parameter name="'
_SQL_TAG = re.compile("<sql>")


class Call(NamedTuple):
    """One tool call."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """A way to write calls: the strings that can begin a call, and the function that reads all calls of a text."""

    openings: tuple[str, ...]
    calls: Callable[[str], list[Call]]


def calls_in_text(text: str, fences: Fences = "") -> list[Call]:
    """Every call in order; if there is none, the last code block without a language, or each of SQL (see Fences)."""
    if "<answer>" in text or "<solution>" in text:  # a final answer may quote any syntax
        return _tagged_calls(text)
    calls: list[Call] = []
    if "<" in text or "Action" in text or "```" in text:  # every syntax needs one of them
        calls = next((calls for syntax in SYNTAXES if (calls := syntax.calls(text))), [])
    if not calls and fences == "sql":
        return _sql_blocks(text)
    if not calls and fences == "plain" and (block := _plain_block(text)):
        return [Call("bash", {"command": text[block[0] + len(_PLAIN_FENCE) : block[1]]})]
    return calls


def text_without_calls(text: str, fences: Fences = "") -> str:
    """The thought of a text with calls: its `<think>` sections, otherwise the text before the first call."""
    if thoughts := tagged(text, "think") or tagged(text, "thought"):
        return "\n\n".join(thought.strip() for thought in thoughts)
    lines = f"\n{text}"
    ends = [position for opening in (*OPENINGS, *_HARMONY) if (position := lines.find(opening)) >= 0]
    if "Action" in text and (action := _ANY_ACTION.search(text)):
        ends.append(action.start() + 1)
    if not ends and fences == "sql" and (match := _SQL_FENCE.search(text) or _SQL_TAG.search(text)):
        ends = [match.start() + 1]
    elif not ends and fences == "plain" and (block := _plain_block(text)):
        ends = [block[0] + 1]
    before = text[: max(0, min(ends, default=len(text) + 1) - 1)].strip()
    return before[heading.end() :].strip() if (heading := _THOUGHT.match(before)) else before


def _tagged_calls(text: str) -> list[Call]:
    """`<tool_call>{"name", "arguments"}</tool_call>` (Qwen, WebDancer); a call in no known form is skipped.

    Code can follow the JSON (Tongyi DeepResearch), and GLM writes the name and tags for each argument.
    """
    return [call for written in tagged(text, "tool_call") if (call := _tagged_call(written)) is not None]


def _tagged_call(written: str) -> Call | None:
    head, mark, code = written.partition("<code>")
    found = embedded_object(head)
    if isinstance(found.get("name"), str):
        arguments = embedded_object(found.get("arguments"))
        return Call(found["name"], arguments | {"code": code.partition("</code>")[0].strip()} if mark else arguments)
    keys, values = tagged(written, "arg_key"), tagged(written, "arg_value")
    name = written.partition("<arg_key>")[0].strip()
    return Call(name, dict(zip(keys, values, strict=False))) if keys and name.isidentifier() else None


def _function_calls(text: str) -> list[Call]:
    """`<function=NAME><parameter=KEY>value</parameter></function>` (OpenHands)."""
    calls: list[Call] = []
    for part in text.split("<function=")[1:]:
        name, end, body = part.partition(">")
        if end and name.strip().isidentifier():
            pairs = (piece.partition("</parameter>")[0].partition(">") for piece in body.split("<parameter=")[1:])
            calls.append(Call(name.strip(), {key: value.strip("\n") for key, _, value in pairs}))
    return calls


def _actions(text: str) -> list[Call]:
    """`Action: NAME[input]`, `Action: NAME` followed by a line `Action Input: ...`, or an action that is data."""
    if "Action" not in text:
        return []
    if calls := _actions_as_data(text):
        return calls
    matches = list(_ACTION.finditer(text))
    starts = [match.start() for match in matches] + [len(text)]
    for match, end in zip(matches, starts[1:], strict=True):
        given = match[2]
        if given is None:
            head = _ACTION_INPUT.match(text, match.end(), end)
            if head is None:
                continue
            given = text[head.end() : end].partition(_OBSERVATION)[0].strip()
        calls.append(Call(match[1].strip(), embedded_object(given) or {"input": given}))
    return calls


def _actions_as_data(text: str) -> list[Call]:
    """`Action: {"action": NAME, "action_input": ...}`, also as a Python dict, and `Action: NAME("input", key=1)`."""
    calls: list[Call] = []
    matches = list(_ACTION_OBJECT.finditer(text))
    for match, end in zip(matches, [*(match.start() for match in matches), len(text)][1:], strict=True):
        body = text[match.end() : end].partition(_OBSERVATION)[0].partition("```")[0].strip()
        found = embedded_object(body) or literal_object(body)
        name = next((found[key] for key in (*NAME_KEYS, "function") if isinstance(found.get(key), str)), None)
        given: Any = next((found[key] for key in ("arguments", *ARGUMENT_KEYS) if key in found), None)
        if name is not None:
            calls.append(Call(name, embedded_object(given) or ({"input": given} if given else {})))
    return calls or [Call(match[1], _python_arguments(match[2])) for match in _ACTION_CALL.finditer(text)]


def _python_arguments(text: str) -> dict[str, Any]:
    """The literals of a Python call by their names, the first without a name as `input`."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body if len(text) <= _MAX_CALL_CHARACTERS else None
        if not isinstance(call, ast.Call):
            raise ValueError
        named = {"input": ast.literal_eval(call.args[0])} if call.args else {}
        return named | {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return {"input": text.strip().strip("'\"")} if text.strip() else {}


def _invocations(text: str) -> list[Call]:
    """`<invoke name="NAME"><parameter name="KEY">value</parameter></invoke>` (Anthropic)."""
    calls: list[Call] = []
    for part in text.split(_INVOKE)[1:]:
        name, end, body = part.partition('"')
        if end and name:
            pairs = (piece.partition("</parameter>")[0].partition('"') for piece in body.split(_PARAMETER)[1:])
            calls.append(Call(name, {key: value.partition(">")[2].strip("\n") for key, _, value in pairs}))
    return calls


def _tagged_commands(text: str) -> list[Call]:
    """`<execute_bash>command</execute_bash>` and `<execute_ipython>` (OpenHands before function calls)."""
    found = [(text.find(code), tag, code) for tag in _COMMAND_TAGS for code in tagged(text, tag)]
    return [Call(tag, {"command": code.strip("\n")}) for _, tag, code in sorted(found)]


def _fenced_commands(text: str) -> list[Call]:
    """One code block of bash (mini-swe-agent)."""
    for fence in _FENCES:
        _, mark, rest = text.partition(fence)
        command, end, _ = rest.partition("\n```")
        if mark and end:
            return [Call("bash", {"command": command})]
    return []


def _plain_block(text: str) -> tuple[int, int] | None:
    """Where the last code block without a language begins, and where its command ends (SWE-agent)."""
    end = text.rfind("\n```")
    start = text.rfind(_PLAIN_FENCE, 0, end + 1) if end >= 0 else -1
    return (start, end) if start >= 0 else None


def _sql_blocks(text: str) -> list[Call]:
    """Every closed code block of SQL, or every query in the tags of SkyRL-SQL."""
    calls = [Call("sql", {"query": query.strip()}) for query in tagged(text, "sql")]
    position = 0
    while (opening := _SQL_FENCE.search(text, position)) and (end := text.find("\n```", opening.end() - 1)) >= 0:
        calls.append(Call("sql", {"query": text[opening.end() : end].strip()}))
        position = end + len("\n```")
    return calls


def _searches(text: str) -> list[Call]:
    """`<search>query</search>` on one line (Search-R1)."""
    queries = (query.strip() for query in tagged(text, "search"))
    return [Call("search", {"query": query}) for query in queries if query and "\n" not in query]


def _mcp_calls(text: str) -> list[Call]:
    """`<use_mcp_tool>` with a `<tool_name>` and `<arguments>` in JSON (MiroFlow, MiroThinker)."""
    calls = []
    for call in tagged(text, "use_mcp_tool"):
        names, given = tagged(call, "tool_name"), tagged(call, "arguments")
        if names:
            calls.append(Call(names[0].strip(), embedded_object(given[0]) if given else {}))
    return calls


def _python_code(text: str) -> list[Call]:
    """Python code in the tags and fences of code agents (python_calls.py)."""
    return [Call("python", {"code": code.strip()}) for code in code_blocks(text)]


SYNTAXES = (
    CallSyntax(("<tool_call>",), _tagged_calls),
    CallSyntax(("<function=",), _function_calls),
    CallSyntax(("<use_mcp_tool>",), _mcp_calls),
    CallSyntax(("<function_calls>", _INVOKE), _invocations),
    CallSyntax(tuple(f"<{tag}>" for tag in _COMMAND_TAGS), _tagged_commands),
    CallSyntax(("\nAction:",), _actions),
    CallSyntax(_FENCES, _fenced_commands),
    CallSyntax(("<search>",), _searches),
    CallSyntax(("<execute>", "\n<code>\n", "\nCode:"), _python_code),
)
OPENINGS = tuple(opening for syntax in SYNTAXES for opening in syntax.openings)
