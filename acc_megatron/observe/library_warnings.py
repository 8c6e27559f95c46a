"""Warnings of Megatron, Apex, Transformer Engine and torch go to a file of the run instead of the screen."""

import logging
import sys
import warnings
from pathlib import Path
from typing import TextIO

LOGGERS = ("megatron", "transformer_engine", "apex", "torch")


class LibraryWarnings(logging.Handler):
    """Collects warnings from the start of the process; `write_to` writes them, and all later ones, to a file.

    Without a file they are not shown. `PYTHONWARNINGS=default` or `python -W` turns the collection off.
    """

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self._lines: dict[str, None] = {}  # a set in the order of arrival
        self._file: Path | None = None

    def install(self) -> None:
        """Take over warnings and the loggers of the libraries, unless the user asked to see warnings."""
        if sys.warnoptions:
            return
        warnings.showwarning = self._showwarning
        for name in LOGGERS:
            logger = logging.getLogger(name)
            logger.addHandler(self)
            logger.propagate = False

    def write_to(self, file: Path) -> None:
        """Append what was collected to `file`, and every warning that comes from now on; each line once."""
        self._file = file
        if self._lines:
            self._append("".join(f"{line}\n" for line in self._lines))

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a warning that a library logged."""
        self._add(f"{record.levelname} {record.name}: {record.getMessage()}")

    def _showwarning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        self._add(f"{category.__name__} {filename}:{lineno}: {message}")

    def _add(self, line: str) -> None:
        line = " ".join(line.split())
        if line in self._lines:
            return
        self._lines[line] = None
        if self._file is not None:
            self._append(f"{line}\n")

    def _append(self, text: str) -> None:
        assert self._file is not None
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(text)


LIBRARY_WARNINGS = LibraryWarnings()
