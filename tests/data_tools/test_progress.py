"""The progress line says how much, how fast and how long; off a terminal it comes every ten seconds."""

import io

import pytest

from acc_megatron.data_tools import progress as module
from acc_megatron.data_tools.progress import Progress


class Clock:
    """Stands in for the time module."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(module, "time", clock := Clock())
    return clock


def test_off_a_terminal_a_line_comes_every_ten_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress("convert", 100, stream)
    for number in range(1, 51):
        clock.now += 1
        progress.reach(number)
        progress.add(documents=2, tokens=1_000, dropped=1)
    progress.finish()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[0] == (
        "convert: shard 10 of 100, 20 documents, 10,000 tokens, 1,000 tokens/s, 10 dropped, 0:10, 1:30 left"
    )
    assert lines[-1].endswith("100 documents, 50,000 tokens, 1,000 tokens/s, 50 dropped, 0:50")


def test_on_a_terminal_one_line_is_rewritten(clock: Clock) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    progress = Progress("convert", 3, stream)
    for number in range(1, 4):
        clock.now += 3_700
        progress.reach(number)
        progress.add(documents=1, tokens=1, dropped=0)
    progress.finish()
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("3:05:00\n") and text.count("\r\x1b[2K") == 4
    assert "1:01:40, 2:03:20 left" in text


def test_nothing_done_says_nothing(clock: Clock) -> None:
    stream = io.StringIO()
    Progress("convert", 0, stream).finish()
    assert stream.getvalue() == ""


def test_where_shards_are_not_known_the_bytes_read_say_how_long_is_left(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress("compile", 2_000_000, stream, unit="bytes")
    clock.now += 20
    progress.add(dropped=1)
    clock.now += 20
    progress.reach(500_000)
    progress.add(documents=1, tokens=40)
    assert stream.getvalue().splitlines() == [
        "compile: 0% of 2.0 MB, 0 documents, 0 tokens, 0 tokens/s, 1 dropped, 0:20",
        "compile: 25% of 2.0 MB, 1 documents, 40 tokens, 1 tokens/s, 1 dropped, 0:40, 2:00 left",
    ]
