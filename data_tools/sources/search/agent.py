"""Search agents: pages they visited are evidence."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.rows.fields import optional_object
from acc_megatron.data_tools.schema import Piece, Trajectory, Triple
from acc_megatron.data_tools.sources.agent_kind import AgentKind
from acc_megatron.data_tools.sources.container_test import ContainerTest
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.search import reader
from acc_megatron.data_tools.sources.search.answer_match import matches
from acc_megatron.errors import Dropped

_SHORTEST_ANSWER = 4  # characters; shorter answers ("Yes", "12") are in many pages by chance


class SearchAgent(AgentKind):
    """Pages are lent to other runs, unless they contain the answer."""

    name = "search"
    summary = "pages that the agent visited are evidence, other hits are distractors"

    def recognises(self, value: dict[str, Any]) -> bool:
        """See search/reader.py."""
        return reader.recognises(value)

    def read(self, row: Row, resources: Resources) -> Trajectory:
        """See search/reader.py."""
        return reader.read(row, resources.verdicts)

    def check_answer(self, triple: Triple, answer: str, resources: Resources, test: ContainerTest | None) -> None:
        """The answer must match the ground truth or one of its aliases (search/answer_match.py)."""
        aliases = optional_object(triple.settings, "notes").get("aliases")
        known = [alias for alias in aliases if isinstance(alias, str)] if isinstance(aliases, list) else []
        if not any(matches(answer, truth) for truth in (triple.ground_truth, *known)):
            raise Dropped("wrong_answer", f"expected {triple.ground_truth!r:.200}, got {answer!r:.200}")

    def lent_pieces(self, trajectory: Trajectory) -> Iterable[Piece]:
        """All pages of the run."""
        return [replace(piece, kind="distractor") for piece in (*trajectory.evidence, *trajectory.distractors)]

    def answers_to_hide(self, trajectory: Trajectory) -> Iterable[str]:
        """The ground truth and its aliases, except short ones."""
        truths = (trajectory.ground_truth, *trajectory.notes.get("aliases", ()))
        return [truth for truth in truths if len(truth) >= _SHORTEST_ANSWER]
