"""Where else a run's numbers go when asked: Weights & Biases and MLflow; a tracker that fails never stops a run."""

import time
import uuid
from pathlib import Path
from typing import Any, Protocol

from acc_megatron.config import Config, flatten, to_dict
from acc_megatron.ranks import say


class Tracker(Protocol):
    """What takes a step's numbers."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Take one step."""

    def close(self, *, failed: bool) -> None:
        """Send what is left and mark the run's end."""


class _Wandb:
    """Weights & Biases; WANDB_MODE and the key are its own environment variables."""

    def __init__(self, config: Config, run_dir: Path) -> None:
        import wandb

        self._run = wandb.init(
            project=config.observe.wandb,
            name=config.name,
            id=_kept_id(run_dir / "wandb_run_id", lambda: uuid.uuid4().hex),
            resume="allow",
            dir=str(run_dir),
            config=to_dict(config),
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Mlflow:
    """MLflow through its client, which keeps no state of the process."""

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

        self._run_id = _kept_id(run_dir / "mlflow_run_id", create)
        self._client.update_run(self._run_id, status="RUNNING")

    def log(self, step: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run_id, [Metric(name, value, now, step) for name, value in values.items()])

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")


class _Guarded:
    """A tracker whose first failure is said and ends it: a run is worth more than its picture elsewhere."""

    def __init__(self, name: str, make: Any, config: Config, run_dir: Path) -> None:
        self._name = name
        self._tracker: Tracker | None = None
        self._tracker = self._try(lambda: make(config, run_dir))

    def _try(self, action: Any) -> Any:
        try:
            return action()
        except Exception as error:  # whatever a network and a foreign library can raise
            say(f"observe.{self._name} failed, the run goes on without it: {error!r}")
            self._tracker = None

    def log(self, step: int, values: dict[str, float]) -> None:
        if (tracker := self._tracker) is not None:
            self._try(lambda: tracker.log(step, values))

    def close(self, *, failed: bool) -> None:
        if (tracker := self._tracker) is not None:
            self._try(lambda: tracker.close(failed=failed))


def open_trackers(config: Config, run_dir: Path) -> list[Tracker]:
    """The trackers that the config asks for; a resumed run goes on in the same one there."""
    kinds = {"wandb": _Wandb, "mlflow": _Mlflow}
    return [_Guarded(name, kind, config, run_dir) for name, kind in kinds.items() if getattr(config.observe, name)]


def _kept_id(path: Path, create: Any) -> str:
    """An id that the run folder remembers."""
    if not path.is_file():
        path.write_text(create())
    return path.read_text()
