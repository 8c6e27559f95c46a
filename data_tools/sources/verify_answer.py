"""Checking answers to compiled questions, each by the rule of its agent kind."""

from dataclasses import dataclass

from acc_megatron.data_tools.schema import Triple
from acc_megatron.data_tools.sources.container_test import ContainerTest
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.errors import Dropped


@dataclass(frozen=True, slots=True)
class Verifier:
    """What checks need: the databases of SQL questions, and the test of SWE patches if there is one."""

    resources: Resources
    test: ContainerTest | None = None

    def check(self, triple: Triple, answer: str) -> None:
        """Return if the answer reaches the ground truth; otherwise raise Dropped with the reason."""
        kind = AGENT_KINDS.get(triple.agent)
        if kind is None:
            raise Dropped("no_verifier", f"no agent kind is named {triple.agent!r}; known: {', '.join(AGENT_KINDS)}")
        kind.check_answer(triple, answer, self.resources, self.test)
