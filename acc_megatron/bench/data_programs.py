"""The programs that `bench data` measures, each started as a user would start it; every run gives one row."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from acc_megatron.bench.program_usage import Usage, run_program
from acc_megatron.errors import EnvironmentProblem

OURS, BARE, MEGATRON, COMPILE = "acc-megatron convert", "bare tokenizer", "megatron-core", "acc-megatron compile"


@dataclass(slots=True)
class DataPrograms:
    """Runs programs on the files of one folder and collects their measurements in `rows`.

    A program that fails, for example because memory runs out, does not end the benchmark.
    """

    folder: Path
    engine: str
    say: Callable[[str], None]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def measure(self, provider: str, megabytes: float, workers: int, arguments: list[str]) -> Usage | None:
        """Run one program once and record its usage; None, and a row with the reason, if it fails."""
        row = {"provider": provider, "input_mb": megabytes, "workers": workers}
        try:
            usage = run_program(arguments)
        except EnvironmentProblem as error:
            status = f"failed: {' '.join(str(error).split())}"
            self.rows.append(row | dict.fromkeys(field.name for field in fields(Usage)) | {"status": status})
            self.say(f"{provider:<22} {status}")
            return None
        self.rows.append(row | asdict(usage) | {"status": "measured"})
        self.say(
            f"{provider:<22} {megabytes:>7,.1f} MB  {workers} workers  {usage.cpu_seconds:7.2f} CPU s  "
            f"{usage.wall_seconds:7.2f} s  {usage.peak_mb:6.0f} MB peak"
        )
        return usage

    def compile(self, trajectories: list[str], megabytes: float, out: Path) -> Usage | None:
        """Measure `compile` of trajectories into `out`."""
        return self.measure(COMPILE, megabytes, 1, ["-m", "acc_megatron", "compile", *trajectories, "--out", str(out)])

    def convert(self, triples: Path, megabytes: float, workers: int) -> Usage | None:
        """Measure `convert` into a new folder `out`."""
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        arguments = ["-m", "acc_megatron", "convert", str(triples), "--out", str(self.folder / "out")]
        return self.measure(OURS, megabytes, workers, [*arguments, "--workers", str(workers), "--engine", self.engine])

    def bare(self, texts: Path, megabytes: float) -> Usage | None:
        """Measure the bare tokenizer."""
        program = ["-m", "acc_megatron.bench.bare_tokenizer", "--input", str(texts), "--engine", self.engine]
        return self.measure(BARE, megabytes, 1, program)

    def megatron(self, texts: Path, megabytes: float, workers: int) -> Usage | None:
        """Measure Megatron's preprocessing into `megatron.bin`."""
        program = ["-m", "acc_megatron.bench.megatron_preprocessing", "--input", str(texts), "--workers", str(workers)]
        program += ["--tokenizer", str(self.folder / "tokenizer"), "--out", str(self.folder / "megatron")]
        return self.measure(MEGATRON, megabytes, workers, program)
