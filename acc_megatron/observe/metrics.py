"""The log of a run: one JSON line per step, and the same numbers in TensorBoard and in trackers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypedDict

from acc_megatron.config import Config
from acc_megatron.errors import DataError
from acc_megatron.observe.trackers import Tracker, open_trackers

STEPS_FILE = "steps.jsonl"


class LoggedStep(TypedDict, total=False):
    """A line of steps.jsonl; training/step_result.py and training/step_metrics.py compute the values."""

    step: int
    restarts: int
    loss: float
    grad_norm: float
    learning_rate: float
    tokens_per_second: float
    layout: str
    validation_loss: float | None  # per supervised token of the held-out documents; None in a step without validation
    validation_loss_by_agent: dict[str, float]
    validation_best_step: int | None  # the step with the lowest held-out loss so far
    supervised_tokens: int
    tokens: int
    documents: str  # ranges, see observe/usage.py
    updated: bool
    skipped: bool
    skipped_steps: int
    seconds: float
    data_wait_seconds: float
    data_seconds: float  # this and the next five: sections of the step on rank 0
    forward_seconds: float
    backward_seconds: float
    reduction_seconds: float
    optimizer_seconds: float
    save_seconds: float  # of the save before this step
    model_flops_per_second: float
    peak_share: float | None
    memory_bytes: int
    memory_peak_bytes: int
    expert_load_max_over_mean: list[float]
    dead_experts: list[int]


@dataclass(frozen=True, slots=True)
class Restart:
    """The first step after a restart, and the number of steps that were repeated."""

    first_step: int
    num_repeated: int


class MetricsLog:
    """Appends to `steps.jsonl` and to the TensorBoard events in a run folder, and to the trackers of `config`.

    Only rank 0 is `active`; on other ranks the log has no effect. Each line also has `restarts`, the number of times
    that the run was started again before the step.
    """

    def __init__(self, run_dir: Path, active: bool, *, first_step: int = 1, config: Config | None = None) -> None:
        self._active = active
        if active:
            from torch.utils.tensorboard import SummaryWriter

            run_dir.mkdir(parents=True, exist_ok=True)
            before = list(_read_lines(run_dir))
            self._restarts = before[-1].get("restarts", 0) + 1 if before else 0
            self._lines = _open_after_last_line(run_dir / STEPS_FILE)
            self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step)
            self._trackers: list[Tracker] = open_trackers(config, run_dir) if config else []

    def step(self, step: int, **values: Any) -> None:
        """Write the values of one step; TensorBoard and trackers get numbers, and the largest number of each list."""
        if not self._active:
            return
        values |= {"restarts": self._restarts}
        self._lines.write(json.dumps({"step": step} | values, allow_nan=False) + "\n")
        self._lines.flush()
        scalars = dict(_scalars(values))
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)
        for tracker in self._trackers:
            tracker.log(step, scalars)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            self._lines.close()
            self._board.close()
            for tracker in self._trackers:
                tracker.close(failed=error is not None)


def _scalars(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, int | float):
            yield name, float(value)
        elif isinstance(value, dict):
            yield from ((f"{name}/{key}", float(part)) for key, part in value.items())
        elif isinstance(value, list) and value:
            yield f"{name}_worst_layer", float(max(value))


def _open_after_last_line(path: Path) -> IO[str]:
    """Open for appending, and remove an incomplete last line that a killed process left."""
    if path.is_file():
        data = path.read_bytes()
        if len(data) != (complete := data.rfind(b"\n") + 1):
            with path.open("r+b") as file:
                file.truncate(complete)
    return path.open("a", encoding="utf-8")


def _read_lines(run_dir: Path) -> Iterator[LoggedStep]:
    """Read every complete line in the order written; an incomplete last line is ignored.

    Raises DataError for a line that is damaged.
    """
    path = run_dir / STEPS_FILE
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                if line.endswith("\n"):
                    yield _logged_step(line, f"{path}:{number}")


def _logged_step(line: str, where: str) -> LoggedStep:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or "step" not in row:
        raise DataError(f"{where} is not a line that training logs: remove the line, or give another run")
    return row  # type: ignore[return-value]


def read_steps(run_dir: Path) -> list[LoggedStep]:
    """Read the steps of a run in order; of a step that was repeated after a restart, the last line counts."""
    by_step = {row["step"]: row for row in _read_lines(run_dir)}
    return [by_step[step] for step in sorted(by_step)]


def read_restarts(run_dir: Path) -> list[Restart]:
    """Read where a run was started again."""
    restarts: list[Restart] = []
    newest = number = 0
    for row in _read_lines(run_dir):
        if row.get("restarts", 0) != number:
            number = row["restarts"]
            restarts.append(Restart(first_step=row["step"], num_repeated=max(0, newest - row["step"] + 1)))
        newest = row["step"]
    return restarts
