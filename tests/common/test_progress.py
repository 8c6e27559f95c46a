"""The progress line shows counts, rate and time left: rewritten on a terminal, every ten seconds elsewhere."""

import io

import pytest

from acc_megatron.common import live_line, progress
from acc_megatron.common.progress import Progress


class Clock:
    """A replacement for the time module."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (live_line, progress):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_without_a_terminal_a_line_is_printed_every_ten_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress("convert", 100, stream)
    for number in range(1, 51):
        clock.now += 1
        shown.reach(number)
        shown.add(documents=2, tokens=1_000, dropped=1)
    shown.finish()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[0] == ("convert: shard 10 of 100, 1:30 left, 20 documents, 10,000 tokens, 1,000 tokens/s, 10 dropped")
    assert lines[-1] == ("convert: shard 50 of 100 in 0:50, 100 documents, 50,000 tokens, 1,000 tokens/s, 50 dropped")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    return stream


def test_on_a_terminal_one_line_is_rewritten(clock: Clock, terminal: io.StringIO) -> None:
    stream = terminal
    shown = Progress("convert", 3, stream)
    for number in range(1, 4):
        clock.now += 3_700
        shown.reach(number)
        shown.add(documents=1, tokens=1, dropped=0)
    shown.finish()
    text = stream.getvalue()
    assert text.count("\n") == 1 and " in 3:05:00, 3 documents" in text and text.count("\r\x1b[2K") == 3
    assert "convert: shard 1 of 3, 2:03:20 left, 1 documents" in text


def test_on_a_narrow_terminal_the_line_is_cut_to_its_width(
    clock: Clock, terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    shown = Progress("convert", 3, terminal)
    for number in range(1, 4):
        clock.now += 1
        shown.reach(number)
        shown.add(documents=1, tokens=1)
    lines = terminal.getvalue().split("\r\x1b[2K")
    # a line as wide as the terminal wraps on some terminals, and could not be erased
    assert len(lines) == 3 and all(len(line) == 39 and line.endswith("…") for line in lines)
    assert all(line.startswith(f"convert: shard {number} of 3, 0:0") for number, line in enumerate(lines, 1))
    shown.finish()
    assert terminal.getvalue().endswith("1 tokens/s, 0 dropped\n"), "the last line is complete"


def test_nothing_is_shown_when_nothing_was_done(clock: Clock) -> None:
    stream = io.StringIO()
    Progress("convert", 0, stream).finish()
    assert stream.getvalue() == ""


def test_the_time_left_follows_from_the_bytes_read(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress("compile", 2_000_000, stream, unit="bytes")
    clock.now += 20
    shown.add(dropped=1)
    clock.now += 20
    shown.reach(500_000)
    shown.add(documents=1, tokens=40)
    assert stream.getvalue().splitlines() == [
        "compile: 0% of 2.0 MB, 0 documents, 0 tokens, 0 tokens/s, 1 dropped",
        "compile: 25% of 2.0 MB, 2:00 left, 1 documents, 40 tokens, 1 tokens/s, 1 dropped",
    ]
