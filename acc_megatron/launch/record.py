"""What was launched, kept where it was launched from, so that status, logs and cancel need the file alone."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from acc_megatron.errors import EnvironmentProblem

FILE = "launched.json"


@dataclass
class Launched:
    """The last launch of an experiment: where it went and the cluster's name of each stage."""

    target: str = ""
    jobs: dict[str, str] = field(default_factory=dict)  # stage -> id
    states: dict[str, str] = field(default_factory=dict)  # stage -> state, where no cluster can be asked later
    scripts: dict[str, str] = field(default_factory=dict)  # stage -> file
    logs: dict[str, str] = field(default_factory=dict)  # stage -> folder

    def add(self, other: "Launched") -> None:
        """Take over the stages of another record."""
        for name in ("jobs", "states", "scripts", "logs"):
            getattr(self, name).update(getattr(other, name))

    def save(self, folder: Path) -> None:
        """Publish the record in an experiment's launch folder."""
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{FILE}.tmp"
        temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        temporary.replace(folder / FILE)


def read_record(folder: Path) -> Launched:
    """The record of the last launch; raises EnvironmentProblem when there was none."""
    path = folder / FILE
    if not path.is_file():
        raise EnvironmentProblem(f"nothing was launched: no {path}; status, logs and cancel run where launch ran")
    return Launched(**json.loads(path.read_text(encoding="utf-8")))
