"""The record of a launch, on the machine that launched: status, logs and cancel need nothing else."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from acc_megatron.common.atomic_files import write_json
from acc_megatron.errors import EnvironmentProblem

FILE = "launched.json"


@dataclass
class Launched:
    """The last launch of an experiment: its target, and what the target calls each job."""

    target: str = ""
    jobs: dict[str, str] = field(default_factory=dict)  # job -> id
    states: dict[str, str] = field(default_factory=dict)  # job -> final state, for a target without a scheduler
    scripts: dict[str, str] = field(default_factory=dict)  # job -> file
    logs: dict[str, str] = field(default_factory=dict)  # job -> folder

    def add(self, other: "Launched") -> None:
        """Add the jobs of another record."""
        for name in ("jobs", "states", "scripts", "logs"):
            getattr(self, name).update(getattr(other, name))

    def save(self, folder: Path) -> None:
        """Publish the record in the launch folder of an experiment."""
        write_json(folder / FILE, asdict(self))


def read_record(folder: Path) -> Launched:
    """The record of the last launch; raises EnvironmentProblem if there is none."""
    path = folder / FILE
    if not path.is_file():
        raise EnvironmentProblem(
            f"nothing was launched: {path} does not exist; run status, logs and cancel in the folder in which you ran "
            "launch"
        )
    return Launched(**json.loads(path.read_text(encoding="utf-8")))
