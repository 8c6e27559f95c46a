"""The predicted step as a Chrome trace, to be laid next to a profile of a real step (opens in ui.perfetto.dev).

Format: "Trace Event Format" (Google, 2016), JSON object form with complete events (`ph` X) and metadata (`ph` M). Every
pipeline stage is a process, with a track for compute, one for each kind of collective, and one for idle time. The plan
predicts the slowest stage, so all stages show its times; chunks of a virtual pipeline are not drawn.
"""

from dataclasses import dataclass, field
from typing import Any

from acc_megatron.plan.planner import Plan

COMPUTE, IDLE = "compute", "idle"
# parts of a microbatch in the order in which they are drawn: the exchange of keys and values is hidden behind
# attention and recompute, which therefore follow one another
COMPUTE_PARTS = ("arithmetic", "memory_traffic", "launches", "attention", "recompute")
EXPOSED_PARTS = {"tensor": ("TP",), "context": ("CP",), "experts": ("EP", "ETP")}


@dataclass
class _Stage:
    """The events of one stage, and the time that they have reached."""

    number: int
    tracks: dict[str, int] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    now: float = 0.0  # seconds

    def add(self, track: str, name: str, seconds: float, *, start: float | None = None, **details: Any) -> None:
        """Add an event at `start`, hidden behind others, or at the end, where it takes time of the step."""
        is_hidden = start is not None
        begin = self.now if start is None else start
        if seconds > 0:
            thread = self.tracks.setdefault(track, len(self.tracks))
            self.events.append(
                {
                    "ph": "X", "name": name, "cat": "hidden" if is_hidden else "step", "pid": self.number,
                    "tid": thread, "ts": begin * 1e6, "dur": seconds * 1e6, "args": details,
                }
            )  # fmt: skip
        if not is_hidden:
            self.now += seconds

    def named(self) -> list[dict[str, Any]]:
        """All events, with the names of the stage and of its tracks."""
        about = [("process_name", 0, f"stage {self.number}"), *(("thread_name", i, t) for t, i in self.tracks.items())]
        names = [
            {"ph": "M", "name": kind, "pid": self.number, "tid": thread, "args": {"name": text}}
            for kind, thread, text in about
        ]
        return names + self.events


def trace(plan: Plan) -> dict[str, Any]:
    """The trace of one step; on every stage the events that are not hidden add up to the planned step time."""
    events = [event for number in range(plan.layout.pipeline) for event in _stage(plan, number).named()]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"config": plan.config.name, "layout": str(plan.layout), "machine": plan.machine.name},
    }


def _stage(plan: Plan, number: int) -> _Stage:
    stage, time, last = _Stage(number), plan.time, plan.layout.pipeline - 1
    # the first stage starts at once and waits at the end, where backward passes take two thirds of a microbatch
    early = time.bubble * number / (3 * last) if last else 0.0
    stage.add(IDLE, "pipeline bubble", early)
    microbatches = plan.config.train.global_batch_rows // plan.layout.data
    for microbatch in range(microbatches):
        _microbatch(plan, stage, microbatch, 1 / microbatches)
    stage.add(IDLE, "pipeline bubble", time.bubble - early)
    _gradients(plan, stage)
    stage.add(COMPUTE, "update", time.update)
    stage.add(COMPUTE, "offload", time.offload)
    return stage


def _microbatch(plan: Plan, stage: _Stage, number: int, share: float) -> None:
    parts = plan.time.by_part()
    attention_start = 0.0
    for name in COMPUTE_PARTS:
        if name == "attention":
            attention_start = stage.now
        stage.add(COMPUTE, name.replace("_", " "), parts[name] * share, microbatch=number)
    for part, axes in EXPOSED_PARTS.items():
        found = [item for item in plan.collectives if item.axis in axes]
        total = sum(item.step_seconds for item in found)
        for item in found:
            exposed = parts[part] * item.step_seconds / total
            hidden = (item.step_seconds - exposed) * share
            details = {"microbatch": number, "bytes": round(item.step_bytes * share)}
            stage.add(item.name, item.name, hidden, start=attention_start, **details)
            stage.add(item.name, item.name, exposed * share, **details)
    stage.add(IDLE, "waiting for costlier rows", plan.time.waiting * share, microbatch=number)


def _gradients(plan: Plan, stage: _Stage) -> None:
    """The reduction of gradients; its hidden part is drawn behind the last backward passes."""
    found = [item for item in plan.collectives if item.axis == "DP"]
    total = sum(item.step_seconds for item in found)
    end = stage.now
    for item in found:
        exposed = plan.time.gradients * item.step_seconds / total
        hidden = item.step_seconds - exposed
        end -= hidden
        stage.add(item.name, item.name, hidden, start=end, bytes=round(item.step_bytes))
        stage.add(item.name, item.name, exposed, bytes=round(item.step_bytes))
