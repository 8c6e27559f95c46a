"""The protocol of an agent kind: everything that the data tools ask about runs of one kind."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.schema import Piece, Trajectory, Triple
from acc_megatron.data_tools.sources.container_test import ContainerTest
from acc_megatron.data_tools.sources.resources import Resources


class AgentKind(ABC):
    """One kind of agent; known_agents.py registers an instance of each.

    The three abstract methods are required. The others have defaults: a kind that lends nothing and has no documents
    of its own keeps its contexts at their natural length.
    """

    name: ClassVar[str]
    """The value of `--agent` and of the field `agent`."""
    summary: ClassVar[str]
    """What counts as evidence, in one line of help."""
    request: ClassVar[str] = ""
    """The sentence that ends every question and states the form of the answer; comparisons of questions ignore it."""
    reveal_request: ClassVar[str] = ""
    """The request for reasoning that leads to a verified `{answer}`; '' if the kind has no such variant."""
    failure_reasons: ClassVar[tuple[str, ...]] = ("wrong_answer",)
    """The openings of the reasons of Dropped that mean: the answer was checked and is wrong."""

    @abstractmethod
    def recognises(self, value: dict[str, Any]) -> bool:
        """Whether a row is a run of this kind."""

    @abstractmethod
    def read(self, row: Row, resources: Resources) -> Trajectory:
        """The run of a row. Raises Dropped for a run that failed or cannot be read."""

    def read_run(self, row: Row, resources: Resources) -> Trajectory:
        """The run of a row for the arm agent-sft, which needs no evidence; the same as `read` wherever that works.

        A run whose triple cannot be made has neither evidence nor an answer. Raises Dropped as `read` does.
        """
        return self.read(row, resources)

    @abstractmethod
    def check_answer(self, triple: Triple, answer: str, resources: Resources, test: ContainerTest | None) -> None:
        """Return if the answer reaches the ground truth; otherwise raise Dropped with the reason."""

    def comparable_question(self, trajectory: Trajectory) -> str:
        """The question as it is compared with other questions and with those of evaluations."""
        return trajectory.question.removesuffix(self.request)

    def lent_pieces(self, trajectory: Trajectory) -> Iterable[Piece]:
        """Pieces of a run that can be distractors of other runs of this kind."""
        return ()

    def shared_pieces(self, resources: Resources) -> Iterable[Piece]:
        """Pieces of the resources that can be distractors of any run of this kind."""
        return ()

    def own_documents(self, trajectory: Trajectory, resources: Resources) -> Mapping[str, str]:
        """Path -> text of documents that can be distractors of this run only; '' for a document without text."""
        return {}

    def answers_to_hide(self, trajectory: Trajectory) -> Iterable[str]:
        """Texts that no added distractor may contain, because they give the answer away."""
        return ()
