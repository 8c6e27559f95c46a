"""The protocol of a log format: recognise a row, read its steps, read its turns."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

from acc_megatron.data_tools.conversation import Turn
from acc_megatron.data_tools.schema import Trajectory
from acc_megatron.errors import Dropped

Fences = Literal["", "plain", "sql"]
"""The code blocks that are calls if a text has no other call: without a language (a shell command), or of SQL."""

FINISH_TOOLS = {"finish", "final_answer", "answer", "submit", "complete", "terminate"}
"""Tools whose call ends a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One tool call with its output; `tool` is '' for an output that answers no call."""

    thought: str = ""
    tool: str = ""
    arguments: dict[str, Any]
    output: str = ""

    def with_output(self, output: str) -> "Step":
        """The same call with its output."""
        return Step(thought=self.thought, tool=self.tool, arguments=self.arguments, output=output)

    def argument(self, *names: str) -> str:
        """The first of the named arguments that is text, otherwise the only argument if it is text, otherwise ''."""
        values = [self.arguments.get(name) for name in names]
        values += self.arguments.values() if len(self.arguments) == 1 else []
        return next((value for value in values if isinstance(value, str)), "")


class Request(NamedTuple):
    """A user message that answers no tool call: its text, and the number of steps up to it, itself included."""

    text: str
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A run as steps: the last message before the agent's first one, the steps, and the closing text ('' if none).

    `later_requests` are the user's requests after the agent's first message.
    """

    prompt: str
    steps: tuple[Step, ...]
    final: str
    later_requests: tuple[Request, ...] = ()

    def of_one_question(self, question: str = "") -> "Transcript":
        """The part that belongs to the row's own `question`, or to the last request if no call precedes it.

        Raises Dropped('several_questions') if calls precede the last request and the row does not say which of the
        questions it is about.
        """
        if not self.later_requests or not any(step.tool for step in self.steps):
            return self
        wanted = " ".join(question.split())
        asked = [request for request in self.later_requests if " ".join(request.text.split()) == wanted]
        last = self.later_requests[-1]
        if wanted and not asked:
            return self
        num_calls = sum(bool(step.tool) for step in self.steps[: last.num_steps])
        if not wanted and num_calls:
            raise Dropped(
                "several_questions",
                f"{1 + len(self.later_requests)} user requests, {num_calls} calls before the last, and no 'question'",
            )
        start = asked[-1] if asked else last
        return replace(self, prompt=start.text, steps=self.steps[start.num_steps :], later_requests=())

    def thoughts(self) -> str:
        """The thoughts of all steps, separated by blank lines."""
        return "\n\n".join(step.thought.strip() for step in self.steps if step.thought.strip())


class LogFormat(ABC):
    """One way to write a run into a row; known_formats.py registers an instance of each.

    `agent` names the agent kind whose runs are the only ones in this format, or is None.
    """

    name: ClassVar[str]
    agent: ClassVar[str | None] = None

    @abstractmethod
    def recognises(self, value: dict[str, Any]) -> bool:
        """Whether a row contains a run in this format."""

    @abstractmethod
    def transcript(self, value: dict[str, Any], *, fences: Fences = "") -> Transcript:
        """The run as steps; code blocks of the kind `fences` can be calls. Raises Dropped."""

    @abstractmethod
    def turns(self, value: dict[str, Any], trajectory: Trajectory) -> list[Turn]:
        """The run as turns in their order; `trajectory` is what was read from the same row. Raises Dropped."""

    def tool_names(self, value: dict[str, Any]) -> set[str]:
        """The names of the tools that the run calls; empty for a malformed row."""
        try:
            return {step.tool for step in self.transcript(value).steps if step.tool}
        except Dropped:
            return set()
