"""One JSON line a step, and the same numbers in TensorBoard and the trackers asked for; rank 0 alone writes."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from acc_megatron.config import Config
from acc_megatron.observe.trackers import Tracker, open_trackers

STEPS_FILE = "steps.jsonl"


class MetricsLog:
    """Appends to `steps.jsonl` and to TensorBoard events in a run folder; inert when not `active`.

    Each line has `restarts`, how often the run was started again before it. With a `config` its trackers are fed too.
    """

    def __init__(self, run_dir: Path, active: bool, *, first_step: int = 1, config: Config | None = None) -> None:
        self._active = active
        if active:
            from torch.utils.tensorboard import SummaryWriter

            run_dir.mkdir(parents=True, exist_ok=True)
            before = list(_read_lines(run_dir))
            self._restarts = before[-1].get("restarts", 0) + 1 if before else 0
            self._lines = _open_whole_lines(run_dir / STEPS_FILE)
            self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step)
            self._trackers: list[Tracker] = open_trackers(config, run_dir) if config else []

    def step(self, step: int, **values: Any) -> None:
        """Write one step's values; numbers, and the largest of a list, also go to TensorBoard and trackers."""
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
        elif isinstance(value, list) and value:
            yield f"{name}_worst_layer", float(max(value))


def _open_whole_lines(path: Path) -> IO[str]:
    """Open for appending, without the part of a line that a killed process left behind."""
    if path.is_file():
        data = path.read_bytes()
        if len(data) != (whole := data.rfind(b"\n") + 1):
            with path.open("r+b") as file:
                file.truncate(whole)
    return path.open("a", encoding="utf-8")


def _read_lines(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Every whole line in the order written; what a kill tore off at the end is no line."""
    path = run_dir / STEPS_FILE
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.endswith("\n"))


def read_steps(run_dir: Path) -> list[dict[str, Any]]:
    """The steps of a run in order; a step that a restart did again counts once, as it was done last."""
    by_step = {row["step"]: row for row in _read_lines(run_dir)}
    return [by_step[step] for step in sorted(by_step)]


def read_restarts(run_dir: Path) -> list[tuple[int, int]]:
    """For each restart the first step it did, and how many steps of the run before it did again."""
    restarts, newest, number = [], 0, 0
    for row in _read_lines(run_dir):
        if row.get("restarts", 0) != number:
            number = row["restarts"]
            restarts.append((row["step"], max(0, newest - row["step"] + 1)))
        newest = row["step"]
    return restarts
