"""The programs that `bench data` measures, each started as a user would start it, with its usage kept as a row."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from acc_megatron.bench.measure import Usage, run_program

OURS, BARE, MEGATRON, COMPILE = "acc-megatron convert", "bare tokenizer", "megatron-core", "acc-megatron compile"


@dataclass(slots=True)
class DataPrograms:
    """The folder of a run and everything measured in it."""

    folder: Path
    engine: str
    say: Callable[[str], None]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def take(self, provider: str, megabytes: float, workers: int, arguments: list[str]) -> Usage:
        """Measure one program once."""
        usage = run_program(arguments)
        self.rows.append({"provider": provider, "input_mb": megabytes, "workers": workers, **asdict(usage)})
        self.say(
            f"{provider:<22} {megabytes:>7,.1f} MB  {workers} workers  {usage.cpu_seconds:7.2f} CPU s  "
            f"{usage.wall_seconds:7.2f} s  {usage.peak_mb:6.0f} MB peak"
        )
        return usage

    def compile(self, runs: list[str], megabytes: float, out: Path) -> Usage:
        """Measure a compile of runs into `out`."""
        return self.take(COMPILE, megabytes, 1, ["-m", "acc_megatron", "compile", *runs, "--out", str(out)])

    def convert(self, triples: Path, megabytes: float, workers: int) -> Usage:
        """Measure a conversion into the folder's `out`, made anew."""
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        arguments = ["-m", "acc_megatron", "convert", str(triples), "--out", str(self.folder / "out")]
        return self.take(OURS, megabytes, workers, [*arguments, "--workers", str(workers), "--engine", self.engine])

    def bare(self, texts: Path, megabytes: float) -> Usage:
        """Measure the bare tokenizer loop."""
        program = ["-m", "acc_megatron.bench.bare_tokenizer", "--input", str(texts), "--engine", self.engine]
        return self.take(BARE, megabytes, 1, program)

    def megatron(self, texts: Path, megabytes: float, workers: int) -> Usage:
        """Measure Megatron's path into the folder's `megatron.bin`."""
        program = ["-m", "acc_megatron.bench.megatron_path", "--input", str(texts), "--workers", str(workers)]
        program += ["--tokenizer", str(self.folder / "tokenizer"), "--out", str(self.folder / "megatron")]
        return self.take(MEGATRON, megabytes, workers, program)
