"""One line of progress on stderr: rewritten in place on a terminal, printed now and then elsewhere."""

import sys
import time
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

LINE_SECONDS = 10.0
REDRAW_SECONDS = 0.2
_drawn: "LiveLine | None" = None  # the line that this process has on the terminal


class LiveLine:
    """Shows the newest line. Put what matters most first: on a terminal the line is cut to the width."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.is_terminal = self._stream.isatty()
        self._shown = time.monotonic()

    @cached_property
    def _console(self) -> "Console":
        from rich.console import Console  # here, because doctor and every rank's log work without rich

        return Console(file=self._stream, highlight=False)

    def is_due(self) -> bool:
        """Whether enough time has passed since the last line: 0.2 s on a terminal, 10 s elsewhere."""
        now = time.monotonic()
        if now - self._shown < (REDRAW_SECONDS if self.is_terminal else LINE_SECONDS):
            return False
        self._shown = now
        return True

    def show(self, line: str) -> None:
        """Replace the line on a terminal; print it elsewhere."""
        if not self.is_terminal:
            print(line, file=self._stream, flush=True)
            return
        from rich.text import Text

        global _drawn
        self.erase()
        text = Text(line)
        # one column stays free: some terminals wrap after the last one, and a wrapped line cannot be erased
        text.truncate(max(1, self._console.width - 1), overflow="ellipsis")
        self._console.print(text, end="", no_wrap=True, overflow="ignore", crop=False)
        _drawn = self

    def keep(self, line: str) -> None:
        """Print a line that stays, in place of the live line."""
        self.erase()
        print(line, file=self._stream, flush=True)

    def erase(self) -> None:
        """Remove the live line, so that something else can be printed."""
        global _drawn
        if _drawn is self:
            from rich.control import Control, ControlType

            self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
            _drawn = None


def erase_live_line() -> None:
    """Remove the line that this process has on the terminal, before something else is printed."""
    if _drawn is not None:
        _drawn.erase()


def clock(seconds: float) -> str:
    """Write a duration as 0:05, 12:34 or 3:05:00."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
