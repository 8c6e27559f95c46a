"""Optional trackers, Weights & Biases and MLflow; an error in a tracker never stops a run.

To add a tracker, write a class with the methods of `Tracker` and add it to TRACKERS under the name of its setting.
"""

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from acc_megatron.config import Config, flatten, to_dict
from acc_megatron.mesh.torchrun_environment import say

Result = TypeVar("Result")


class Tracker(Protocol):
    """Receives the logged numbers of each step."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Record the numbers of one step."""

    def close(self, *, failed: bool) -> None:
        """Send the remaining numbers and mark the run as finished or failed."""


class _Wandb:
    """Weights & Biases, configured by its environment variables, such as WANDB_MODE and WANDB_API_KEY."""

    def __init__(self, config: Config, run_dir: Path) -> None:
        import wandb

        self._run = wandb.init(
            project=config.observe.wandb,
            name=config.name,
            id=_stored_id(run_dir / "wandb_run_id", lambda: uuid.uuid4().hex),
            resume="allow",
            dir=str(run_dir),
            config=to_dict(config),
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Mlflow:
    """MLflow, through its client, which has no process-wide state."""

    def __init__(self, config: Config, run_dir: Path) -> None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(config.observe.mlflow)
        experiment = self._client.get_experiment_by_name(config.name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(config.name)

        def create() -> str:
            run = self._client.create_run(experiment_id, run_name=run_dir.resolve().name)
            settings = [Param(key, str(value)) for key, value in flatten(to_dict(config)).items()]
            self._client.log_batch(run.info.run_id, params=settings)
            return run.info.run_id

        self._run_id = _stored_id(run_dir / "mlflow_run_id", create)
        self._client.update_run(self._run_id, status="RUNNING")

    def log(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run_id, [Metric(name, value, now, step) for name, value in values.items()])

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")


TRACKERS: dict[str, Callable[[Config, Path], Tracker]] = {"wandb": _Wandb, "mlflow": _Mlflow}  # by setting in [observe]


class _Guarded:
    """A tracker that is turned off, with a message, after its first error."""

    def __init__(self, name: str, make: Callable[[Config, Path], Tracker], config: Config, run_dir: Path) -> None:
        self._name = name
        self._tracker: Tracker | None = None
        self._tracker = self._try(lambda: make(config, run_dir))

    def _try(self, action: Callable[[], Result]) -> Result | None:
        try:
            return action()
        except Exception as error:  # any error of the network or the library
            say(f"observe.{self._name} failed and is turned off; the run continues: {error!r}")
            self._tracker = None
            return None

    def log(self, step: int, values: dict[str, float]) -> None:
        if (tracker := self._tracker) is not None:
            self._try(lambda: tracker.log(step, values))

    def close(self, *, failed: bool) -> None:
        if (tracker := self._tracker) is not None:
            self._try(lambda: tracker.close(failed=failed))


def open_trackers(config: Config, run_dir: Path) -> list[Tracker]:
    """Open the trackers that the config names; a resumed run continues the same tracker run."""
    return [_Guarded(name, kind, config, run_dir) for name, kind in TRACKERS.items() if getattr(config.observe, name)]


def _stored_id(path: Path, create: Callable[[], str]) -> str:
    """Return the id stored in a file of the run folder; create it if there is none."""
    if not path.is_file():
        path.write_text(create())
    return path.read_text()
