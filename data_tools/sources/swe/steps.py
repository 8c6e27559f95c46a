"""Which rows are SWE runs, and the steps of one."""

import shlex
from dataclasses import replace
from typing import Any

from acc_megatron.data_tools.rows.fields import embedded_object, optional_object
from acc_megatron.data_tools.rows.session_logs import SESSION_KEY
from acc_megatron.data_tools.sources.formats.known_formats import format_of, tool_names, transcript_of
from acc_megatron.data_tools.sources.formats.log_format import Step
from acc_megatron.data_tools.sources.formats.message_log import MessageLog, message_key
from acc_megatron.data_tools.sources.search.pages import tool_kind
from acc_megatron.errors import Dropped

_TERMINAL = str.maketrans("", "", "\r\b")  # carriage returns, and the backspaces of spinners
_SHELL_TOOLS = {
    "bash", "shell", "terminal", "execute_bash", "run_command", "run", "cmd", "execute_command", "run_shell_command",
    "exec_command", "local_shell", "shell_command", "run_terminal_cmd", "bash_command",
}  # fmt: skip
_FILE_TOOLS = {
    "str_replace_editor", "str_replace_based_edit_tool", "file_editor", "edit_file", "read_file", "view_file",
    "open_file",
}  # fmt: skip
_SWE_AGENT_KEYS = {"agent", "message_type", "is_demo"}  # keys of SWE-agent's messages
_SHELL_WORDS = 3  # bash -lc COMMAND
_TASK_KEYS = ("instance_id", "instance", "problem_statement", "base_commit", SESSION_KEY)


def is_swe_run(value: dict[str, Any]) -> bool:
    """Whether a row is in a format of SWE agents, or has messages together with signs of a SWE task."""
    found, key = format_of(value), message_key(value)
    if found is not None and found.agent == "swe":
        return True
    ended = "exit_status" in optional_object(value, "info")
    if key is None and not isinstance(found, MessageLog):
        return "trajectory" in value and ended
    if ended or any(name in value for name in _TASK_KEYS):
        return True
    names = tool_names(value)
    if key == "history":  # SWE-agent's key for its messages, which other agents use too
        has_own_keys = any(not _SWE_AGENT_KEYS.isdisjoint(item) for item in value[key])
        if has_own_keys or not any(map(tool_kind, names)):
            return True
    if isinstance(value.get("question"), str) and any(tool_kind(name) == "search" for name in names):
        return False  # a search agent can have a shell, too
    return bool({name.lower() for name in names} & (_SHELL_TOOLS | _FILE_TOOLS))


def steps_of(value: dict[str, Any]) -> list[Step]:
    """The steps of a run without terminal control characters. Raises Dropped: no_trajectory, or malformed."""
    steps = transcript_of(value, fences="plain").steps
    found = format_of(value)
    if not steps and found is not None and found.agent != "swe":
        raise Dropped("no_trajectory", f"no tool call in the {found.name}")
    return [_plain(step) for step in steps]


def _plain(step: Step) -> Step:
    """A step as a terminal shows it: a command that is a list of words (Codex) is the line that a shell gets."""
    arguments, output = step.arguments, step.output
    command = arguments.get("command")
    if isinstance(command, list) and command and all(isinstance(word, str) for word in command):
        is_shell = len(command) == _SHELL_WORDS and command[1] in ("-lc", "-c")
        arguments = arguments | {"command": command[2] if is_shell else shlex.join(command)}
    if output.startswith('{"output":') and isinstance(text := embedded_object(output).get("output"), str):
        output = text
    thought = step.thought.translate(_TERMINAL)
    return replace(step, thought=thought, arguments=arguments, output=output.translate(_TERMINAL))
