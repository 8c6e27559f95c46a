"""One JSON line a step, and the same numbers in TensorBoard; rank 0 alone writes."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

STEPS_FILE = "steps.jsonl"


class MetricsLog:
    """Appends to `steps.jsonl` and to TensorBoard events in a run folder; inert when not `active`."""

    def __init__(self, run_dir: Path, active: bool) -> None:
        self._active = active
        if active:
            from torch.utils.tensorboard import SummaryWriter

            run_dir.mkdir(parents=True, exist_ok=True)
            self._lines = (run_dir / STEPS_FILE).open("a", encoding="utf-8")
            self._board = SummaryWriter(str(run_dir / "tensorboard"))

    def step(self, step: int, **values: Any) -> None:
        """Write one step's values; numbers also go to TensorBoard."""
        if not self._active:
            return
        self._lines.write(json.dumps({"step": step} | values) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            self._lines.close()
            self._board.close()


def read_steps(run_dir: Path) -> list[dict[str, Any]]:
    """The steps of a run in order; a step that a restart did again counts once, as it was done last."""
    path = run_dir / STEPS_FILE
    if not path.is_file():
        return []
    by_step = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        by_step[row["step"]] = row
    return [by_step[step] for step in sorted(by_step)]
