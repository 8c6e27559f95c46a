"""The trace of a predicted step against the trace event format and against the plan."""

import itertools
import json
from typing import Any

import pytest
from support.commands import ROOT

from acc_megatron.config import load_config
from acc_megatron.plan.planner import Plan, check_plan, make_plan
from acc_megatron.plan.speeds import find_speeds
from acc_megatron.plan.trace import trace
from acc_megatron.plan.workload import read_workload

RECIPE = ROOT / "tests" / "support" / "recipe_30b.toml"
LAYOUTS = [
    (),
    ("parallel.pipeline=2", "parallel.virtual_pipeline=4", "parallel.context=16", "parallel.expert=4"),
    ("parallel.pipeline=4", "parallel.overlap_grad_reduce=true", "memory.recompute=none"),
    ("parallel.context_communication=a2a", "parallel.tensor=1", "parallel.context=4"),
]


def planned(*overrides: str) -> Plan:
    config, speeds = load_config(RECIPE, overrides), find_speeds("h100")
    return make_plan(config, check_plan(config, 64, speeds), speeds, read_workload(config))


@pytest.mark.parametrize("overrides", LAYOUTS, ids=" ".join)
def test_the_events_of_every_stage_add_up_to_the_planned_step(overrides: tuple[str, ...]) -> None:
    plan = planned(*overrides)
    events = json.loads(json.dumps(trace(plan)))["traceEvents"]
    step = [event for event in events if event.get("cat") == "step"]
    stages = {event["pid"] for event in step}
    assert stages == set(range(plan.layout.pipeline))
    for stage in stages:
        own = [event for event in step if event["pid"] == stage]
        assert sum(event["dur"] for event in own) / 1e6 == pytest.approx(plan.time.total)
        assert max(event["ts"] + event["dur"] for event in own) / 1e6 == pytest.approx(plan.time.total)
        # hidden and exposed parts together are all the seconds of each collective, but those of the bubble
        for item in plan.collectives:
            drawn = [event["dur"] for event in events if event["ph"] == "X" and event["name"] == item.name]
            if item.axis != "PP":
                assert sum(drawn) / 1e6 / len(stages) == pytest.approx(item.step_seconds), item.name


@pytest.mark.parametrize("overrides", LAYOUTS, ids=" ".join)
def test_the_trace_follows_the_trace_event_format(overrides: tuple[str, ...]) -> None:
    result = trace(planned(*overrides))
    assert set(result) == {"traceEvents", "displayTimeUnit", "otherData"} and result["displayTimeUnit"] == "ms"
    tracks: dict[tuple[int, int], list[dict[str, Any]]] = {}
    names = set()
    for event in result["traceEvents"]:
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int) and event["name"]
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name") and isinstance(event["args"]["name"], str)
            names.add((event["pid"], event["tid"]))
            continue
        assert event["ph"] == "X" and event["ts"] >= 0 and event["dur"] > 0 and isinstance(event["args"], dict)
        tracks.setdefault((event["pid"], event["tid"]), []).append(event)
    assert names == set(tracks), "every track has a name"
    # complete events of one thread must not overlap, or a viewer draws them inside one another
    for events in tracks.values():
        events.sort(key=lambda event: event["ts"])
        for before, after in itertools.pairwise(events):
            assert before["ts"] + before["dur"] <= after["ts"] + 1.0, (before, after)
