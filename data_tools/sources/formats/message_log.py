"""The base of every format that is a list of messages: a subclass rewrites it as OpenAI's messages."""

from abc import abstractmethod
from collections.abc import Iterable, Set
from typing import Any, ClassVar, TypeGuard

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.data_tools.sources.formats.log_format import Fences, LogFormat, Transcript
from acc_megatron.data_tools.sources.formats.message_steps import called_tools, transcript_of_messages
from acc_megatron.data_tools.sources.formats.message_turns import turns_of_messages

MESSAGE_KEYS = ("messages", "history", "trajectory", "conversation", "conversations", "intermediate_steps")
Message = dict[str, Any]


class OpenAiMessages(list[Message]):
    """Messages that are in OpenAI's form already; `item_keys` are the keys that any of them has."""

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        super().__init__(messages)
        self.item_keys = keys_of(self)


class MessageLog(LogFormat):
    """A list of messages under one of `keys`; steps and turns are read from its OpenAI form."""

    keys: ClassVar[tuple[str, ...]] = MESSAGE_KEYS
    item_keys: ClassVar[frozenset[str]] = frozenset()
    """Every list in this format has an item with one of these keys; empty if no such keys are known."""
    _latest: tuple[dict[str, Any], list[Message]] | None = None

    @abstractmethod
    def recognises_list(self, items: list[Message]) -> bool:
        """Whether a list of objects is written in this format."""

    @abstractmethod
    def messages(self, items: list[Message]) -> list[Message]:
        """The list as OpenAI messages with `role`, `content` and `tool_calls`."""

    def is_format_of(self, items: list[Message], item_keys: Set[str]) -> bool:
        """Whether a list of objects, whose items have these keys, is written in this format."""
        return not (self.item_keys and self.item_keys.isdisjoint(item_keys)) and self.recognises_list(items)

    def recognises(self, value: dict[str, Any]) -> bool:
        """Whether one of `keys` contains a list in this format."""
        return self._key(value) is not None

    def transcript(self, value: dict[str, Any], *, fences: Fences = "") -> Transcript:
        """The steps of the messages. Raises Dropped('malformed')."""
        return transcript_of_messages(self._messages(value), fences)

    def turns(self, value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
        """The turns of the messages; the trajectory's question opens a log without a user message."""
        turns = turns_of_messages(self._messages(value))
        if turns and not any(turn.role == "user" for turn in turns):
            start = next((number for number, turn in enumerate(turns) if turn.role != "system"), len(turns))
            turns.insert(start, Turn(role="user", text=trajectory.question))
        return turns

    def tool_names(self, value: dict[str, Any]) -> set[str]:
        """The names of the tools that the messages call; reading stops after 50."""
        return called_tools(self._messages(value))

    def _key(self, value: dict[str, Any]) -> str | None:
        for key in self.keys:
            if key in value and _is_objects(found := value[key]):
                item_keys = found.item_keys if isinstance(found, OpenAiMessages) else keys_of(found)
                if self.is_format_of(found, item_keys):
                    return key
        return None

    def _messages(self, value: dict[str, Any]) -> list[Message]:
        """The messages of a row, which must not change between two calls; those of the last row are kept."""
        if self._latest is None or self._latest[0] is not value:
            key = self._key(value)
            found = value[key] if key else OpenAiMessages()
            self._latest = (value, found if isinstance(found, OpenAiMessages) else self.messages(found))
        return self._latest[1]


def message_key(value: dict[str, Any]) -> str | None:
    """The key of the first list of objects in which at least one has a role."""
    for key in MESSAGE_KEYS:
        if _is_objects(found := value.get(key)) and any("role" in item for item in found):
            return key
    return None


def keys_of(items: list[Message]) -> Set[str]:
    """The keys that any of the items has."""
    return set().union(*items)


def _is_objects(value: object) -> TypeGuard[list[Message]]:
    if isinstance(value, OpenAiMessages):
        return bool(value)
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
