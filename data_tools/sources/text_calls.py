"""Tool calls written inside an assistant's text, in the five ways that agents are known to write them.

1. `<tool_call>{"name", "arguments"}</tool_call>` (Qwen, WebDancer);
2. `<function=NAME><parameter=KEY>value</parameter></function>` (OpenHands);
3. `Action: NAME[input]`, or `Action: NAME` and `Action Input: ...` on the next line (ReAct);
4. one fenced block of bash (mini-swe-agent);
5. the last fenced block without a language (SWE-agent), read only where it is asked for.
The first way that a text uses is the only one read. All take time linear in the text.
"""

import re
from collections.abc import Iterator
from typing import Any

from acc_megatron.data_tools.sources.fields import embedded_object, tagged

Call = tuple[str, dict[str, Any]]

_ACTION = re.compile(r"^Action(?: \d{1,4})?:([\w .-]{1,80}?)(?:\[(.*)\])?[ \t]*$", re.MULTILINE)
_ACTION_INPUT = re.compile(r"\s{0,8}^Action Input(?: \d{1,4})?:[ \t]*", re.MULTILINE)
_OBSERVATION = "\nObservation"
_PLAIN_FENCE = "```\n"
_FENCES = ("```bash\n", "```mswea_bash_command\n", "```sh\n")


def calls_in_text(text: str, plain_fences: bool = False) -> list[Call]:
    """(tool, arguments) of every call, in order; a call that is no JSON is none."""
    if "<answer>" in text:  # a closing text may quote anything
        return _tagged_calls(text)
    calls = _tagged_calls(text) or _function_calls(text) or list(_actions(text)) or _fenced_commands(text)
    if not calls and plain_fences and (block := _plain_block(text)):
        return [("bash", {"command": text[block[0] + len(_PLAIN_FENCE) : block[1]]})]
    return calls


def text_without_calls(text: str, plain_fences: bool = False) -> str:
    """The thought beside the calls: `<think>` sections if any, else what stands before the first call."""
    if thoughts := tagged(text, "think"):
        return "\n\n".join(thought.strip() for thought in thoughts)
    marks = ("<tool_call>", "<function=", "\nAction:", *(fence for fence in _FENCES))
    ends = [position for mark in marks if (position := f"\n{text}".find(mark)) >= 0]
    if not ends and plain_fences and (block := _plain_block(text)):
        ends = [block[0] + 1]
    return text[: max(0, min(ends, default=len(text) + 1) - 1)].strip().removeprefix("Thought:").strip()


def _tagged_calls(text: str) -> list[Call]:
    found = [embedded_object(call) for call in tagged(text, "tool_call")]
    return [
        (call["name"], embedded_object(call.get("arguments"))) for call in found if isinstance(call.get("name"), str)
    ]


def _function_calls(text: str) -> list[Call]:
    calls: list[Call] = []
    for part in text.split("<function=")[1:]:
        name, end, body = part.partition(">")
        if end and name.strip().isidentifier():
            pairs = (piece.partition("</parameter>")[0].partition(">") for piece in body.split("<parameter=")[1:])
            calls.append((name.strip(), {key: value.strip("\n") for key, _, value in pairs}))
    return calls


def _actions(text: str) -> Iterator[Call]:
    matches = list(_ACTION.finditer(text))
    starts = [match.start() for match in matches] + [len(text)]
    for match, end in zip(matches, starts[1:], strict=True):
        given = match[2]
        if given is None:
            head = _ACTION_INPUT.match(text, match.end(), end)
            if head is None:
                continue
            given = text[head.end() : end].partition(_OBSERVATION)[0].strip()
        yield match[1].strip(), embedded_object(given) or {"input": given}


def _fenced_commands(text: str) -> list[Call]:
    for fence in _FENCES:
        _, mark, rest = text.partition(fence)
        command, end, _ = rest.partition("\n```")
        if mark and end:
            return [("bash", {"command": command})]
    return []


def _plain_block(text: str) -> tuple[int, int] | None:
    """Where the last fenced block without a language begins, and where its command ends."""
    end = text.rfind("\n```")
    start = text.rfind(_PLAIN_FENCE, 0, end + 1) if end >= 0 else -1
    return (start, end) if start >= 0 else None
