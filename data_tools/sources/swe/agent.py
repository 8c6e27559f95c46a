"""SWE agents: files that the gold patch changes are evidence."""

from collections.abc import Mapping
from typing import Any

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.schema import Trajectory, Triple
from acc_megatron.data_tools.sources.agent_kind import AgentKind
from acc_megatron.data_tools.sources.container_test import ContainerTest
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.swe import reader
from acc_megatron.data_tools.sources.swe.answer_patch import check_patch
from acc_megatron.data_tools.sources.swe.steps import is_swe_run
from acc_megatron.errors import Dropped


class SweAgent(AgentKind):
    """Other files of the run's own repository can be its distractors."""

    name = "swe"
    summary = "files that the gold patch changes are evidence, other files that the agent opened are distractors"
    request = reader.REQUEST
    # the v2 variant of the paper's appendix F
    reveal_request = (
        "The verified patch that resolves this issue is:\n\n{answer}\n\nReason step by step, from the documents alone, "
        "to this patch: find the cause, decide on the change, and say why it is right. Write as if the patch were not "
        "known."
    )
    failure_reasons = ("wrong_answer", "unresolved", "patch_", "tests_")

    def recognises(self, value: dict[str, Any]) -> bool:
        """See swe/steps.py."""
        return is_swe_run(value)

    def read(self, row: Row, resources: Resources) -> Trajectory:
        """See swe/reader.py."""
        return reader.read(row, resources)

    def read_run(self, row: Row, resources: Resources) -> Trajectory:
        """The run without its triple, if only the instance, its patch or its files are missing."""
        try:
            return self.read(row, resources)
        except Dropped as dropped:
            if dropped.reason not in reader.MISSING_PARTS:
                raise
            return reader.run_alone(row, resources, dropped)

    def check_answer(self, triple: Triple, answer: str, resources: Resources, test: ContainerTest | None) -> None:
        """The answer's patch must apply, and pass the test if there is one (swe/answer_patch.py)."""
        check_patch(triple, answer, test)

    def own_documents(self, trajectory: Trajectory, resources: Resources) -> Mapping[str, str]:
        """The files of the repository at the base commit."""
        return resources.files(str(trajectory.notes.get("instance_id")), trajectory.notes)
