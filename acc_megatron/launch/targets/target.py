"""What a launch target must provide: one object with these members, registered in `registry.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from acc_megatron.launch.experiment import Loaded
from acc_megatron.launch.launch_record import Launched


@dataclass(frozen=True)
class Preview:
    """What a dry run made, by job: files that would be submitted, or commands that would run."""

    what: str  # the key in --json, for example "scripts"
    jobs: Mapping[str, str | Sequence[str]]


class Target(Protocol):
    """A place where the jobs of an experiment run."""

    @property
    def name(self) -> str:
        """The verb of `acc-megatron launch`, and the section of the experiment file."""

    @property
    def summary(self) -> str:
        """The help of that verb."""

    @property
    def settings(self) -> type[Any] | None:
        """The dataclass of that section, in which every field has a default; None for no section."""

    def check(self, loaded: Loaded) -> None:
        """Check the settings without a cluster; raises ConfigError."""

    def dry_run(self, loaded: Loaded) -> Preview:
        """Write what `submit` would submit."""

    def submit(self, loaded: Loaded, record: Launched) -> None:
        """Start the jobs in order; adds each to the record and saves it as soon as the job exists.

        Raises ConfigError or EnvironmentProblem if the cluster refuses a job, JobFailed if a job that another job
        waits for fails.
        """

    def states(self, loaded: Loaded, record: Launched) -> dict[str, str]:
        """The state of every launched job, in the words of the scheduler."""

    def log(self, loaded: Loaded, record: Launched, job: str) -> str:
        """The log of a job's last start; raises EnvironmentProblem if there is none yet."""

    def cancel(self, loaded: Loaded, record: Launched) -> None:
        """End every job that is still waiting or running."""
