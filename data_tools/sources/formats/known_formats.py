"""The registry of log formats, and what the readers of all agent kinds ask of it."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.rows.fields import embedded_list
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.atif import Atif
from acc_megatron.data_tools.sources.formats.bird_interact import BirdInteract
from acc_megatron.data_tools.sources.formats.browsecomp_plus import BrowseCompPlus
from acc_megatron.data_tools.sources.formats.chat_messages import ChatMessages
from acc_megatron.data_tools.sources.formats.claude_code import ClaudeCode
from acc_megatron.data_tools.sources.formats.codex import Codex
from acc_megatron.data_tools.sources.formats.gemini import Gemini
from acc_megatron.data_tools.sources.formats.gemini_cli import GeminiCli
from acc_megatron.data_tools.sources.formats.generic_steps import GenericSteps
from acc_megatron.data_tools.sources.formats.intercode import InterCode
from acc_megatron.data_tools.sources.formats.langchain import LangChain
from acc_megatron.data_tools.sources.formats.langchain_steps import LangChainSteps
from acc_megatron.data_tools.sources.formats.log_format import Fences, LogFormat, Transcript
from acc_megatron.data_tools.sources.formats.message_log import MESSAGE_KEYS, MessageLog, OpenAiMessages, keys_of
from acc_megatron.data_tools.sources.formats.message_places import with_messages
from acc_megatron.data_tools.sources.formats.moatless import Moatless
from acc_megatron.data_tools.sources.formats.openhands_events import OpenHandsEvents
from acc_megatron.data_tools.sources.formats.openhands_sdk import OpenHandsSdk
from acc_megatron.data_tools.sources.formats.responses_items import ResponsesItems
from acc_megatron.data_tools.sources.formats.run_text import RunText
from acc_megatron.data_tools.sources.formats.smolagents import Smolagents
from acc_megatron.data_tools.sources.formats.spider_agent import SpiderAgent
from acc_megatron.data_tools.sources.formats.swe_agent import SweAgentSteps
from acc_megatron.errors import Dropped

# the first format that recognises a row reads it, so a narrower format comes before a wider one
LOG_FORMATS: list[LogFormat] = [
    OpenHandsEvents(),
    SpiderAgent(),
    Moatless(),
    InterCode(),
    BirdInteract(),
    SweAgentSteps(),
    OpenHandsSdk(),
    Codex(),
    ResponsesItems(),
    ClaudeCode(),
    GeminiCli(),
    Atif(),
    LangChain(),
    LangChainSteps(),
    Smolagents(),
    BrowseCompPlus(),
    Gemini(),
    ChatMessages(),
    GenericSteps(),
    RunText(),
]


class _Latest:
    """What is known of the row that was asked about last: the agent kinds and the reader ask about each row in turn."""

    value: dict[str, Any] | None = None
    format: LogFormat | None = None
    tool_names: frozenset[str] | None = None


def format_of(value: dict[str, Any]) -> LogFormat | None:
    """The first format that recognises a row, which must not change between two calls."""
    if _Latest.value is not value:
        _Latest.format = next((known for known in LOG_FORMATS if known.recognises(value)), None)
        _Latest.value, _Latest.tool_names = value, None
    return _Latest.format


def has_run_of(agent: str, value: dict[str, Any]) -> bool:
    """Whether a row contains a run in a format that this agent kind may use."""
    found = format_of(value)
    return found is not None and found.agent in (None, agent)


def transcript_of(value: dict[str, Any], *, fences: Fences = "") -> Transcript:
    """The run of a row as steps. Raises Dropped: no_trajectory without a known format, or malformed."""
    return _known_format(value, "no_trajectory").transcript(value, fences=fences)


def turns_of(value: dict[str, Any], trajectory: Trajectory) -> tuple[Turn, ...]:
    """The turns of a row that was read as `trajectory`, up to the agent's last one.

    Raises Dropped('no_turns') without a known format or without a turn of the agent.
    """
    turns = _known_format(value, "no_turns").turns(value, trajectory)
    while turns and turns[-1].role != "assistant":
        turns.pop()
    if not turns:
        raise Dropped("no_turns", "the run has no turn of the agent")
    return tuple(turns)


def tool_names(value: dict[str, Any]) -> frozenset[str]:
    """The names of the tools that a row's run calls; empty without a known format."""
    found = format_of(value)
    if _Latest.tool_names is None:
        _Latest.tool_names = frozenset(found.tool_names(value) if found else ())
    return _Latest.tool_names


def with_openai_messages(row: Row) -> Row:
    """The row with every list of messages rewritten in OpenAI's form; everything else stays as it is."""
    value = with_messages(row.value)
    lists = {key: plain for key in MESSAGE_KEYS if (plain := _openai_list(value.get(key))) is not None}
    return replace(row, value=value | lists) if lists else row


def _openai_list(found: object) -> OpenAiMessages | None:
    """The OpenAI messages of a list, or of the text of a list; None if no format recognises it."""
    found = embedded_list(found)
    if found is None or not all(isinstance(item, dict) for item in found):
        return None
    item_keys = keys_of(found)
    logs = _message_logs(tuple(LOG_FORMATS))
    return next((OpenAiMessages(log.messages(found)) for log in logs if log.is_format_of(found, item_keys)), None)


@lru_cache(maxsize=1)
def _message_logs(formats: tuple[LogFormat, ...]) -> list[MessageLog]:
    return [known for known in formats if isinstance(known, MessageLog)]


def _known_format(value: dict[str, Any], reason: str) -> LogFormat:
    found = format_of(value)
    if found is None:
        names = ", ".join(known.name for known in LOG_FORMATS)
        raise Dropped(reason, f"no known log format among {sorted(value)[:20]}; known: {names}")
    return found
