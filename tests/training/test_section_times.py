"""Sections of a step are measured through the calls that Megatron makes to its timers."""

import time

from acc_megatron.training.section_times import SECTIONS, SectionTimes


def test_the_times_of_megatrons_timers_are_added_to_their_section() -> None:
    times = SectionTimes()
    for name in ("forward-compute", "forward-compute", "backward-compute", "all-grads-sync", "forward-backward"):
        times(name, log_level=1).start(barrier=True)
        time.sleep(0.002)
        times(name).stop()
    with times.section("data"):
        time.sleep(0.002)
    taken = times.take()
    assert set(taken) == set(SECTIONS)
    assert taken["forward"] >= 0.004 and min(taken["backward"], taken["reduction"], taken["data"]) >= 0.002
    assert taken["optimizer"] == taken["save"] == 0, "nothing else was timed, and other timers of Megatron do not count"
    assert set(times.take().values()) == {0.0}
