"""The page of a comparison of checkpoints: its checkpoints and tasks, above what one analysis found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acc_megatron.analyze.results_format import AttentionResult, CheckpointSource, RoutingResult
from acc_megatron.common.atomic_files import write_json
from acc_megatron.common.html_page import Table, write_page
from acc_megatron.mesh.torchrun_environment import say

COLORS = ("#888888", "#1f5fa8", "#c8641b", "#3b8a4f", "#8a3fa0", "#8c6d1f", "#2a9d9d", "#555555")
# lines of the first checkpoint, the second and the control, distinguishable where they coincide
STROKES: tuple[dict[str, Any], ...] = (
    {"color": COLORS[0], "linewidth": 2.6},
    {"color": COLORS[1], "linewidth": 1.5},
    {"color": COLORS[2], "linewidth": 1.5, "linestyle": (0, (4, 2))},
)


def publish_comparison(out: Path, name: str, result: AttentionResult | RoutingResult, **values: Any) -> Path:
    """Write `out/name.json` and `out/name.html` from the template `name.html.jinja`; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{name}.json", result)
    control_note = _control_note(result["checkpoints"])
    if control_note:
        say(f"note: {control_note}")
    page = out / f"{name}.html"
    write_page(
        page,
        Path(__file__).with_name(f"{name}.html.jinja"),
        title=f"acc-megatron: {name}",
        checkpoints=_checkpoint_table(result["checkpoints"]),
        control_note=control_note,
        tasks=Table(
            ("task", "documents", "drawn from", "left out because of length"),
            [
                (task, str(len(of["documents"])), f"{of['num_documents']:,}", f"{of['left_out_for_length']:,}")
                for task, of in result["tasks"].items()
            ],
            number_columns={1, 2, 3},
        ),
        **values,
    )
    return page


def _checkpoint_table(checkpoints: Mapping[str, CheckpointSource]) -> Table:
    rows = []
    for name, source in checkpoints.items():
        tokens = source["trained_tokens"]
        rows.append((name, source["path"], "unknown" if tokens is None else f"{tokens:,}"))
    return Table(("checkpoint", "path", "trained tokens"), rows, number_columns={2})


def _control_note(checkpoints: Mapping[str, CheckpointSource]) -> str:
    """A warning unless the control was trained on as many tokens; empty without a control."""
    if not {"after", "control"} <= checkpoints.keys():
        return ""
    after, control = (checkpoints[name]["trained_tokens"] for name in ("after", "control"))
    if after is None or control is None:
        return "It is unknown whether after and control were trained on the same number of tokens."
    if after == control:
        return ""
    return (
        f"After and control were trained on different numbers of tokens, {after:,} and {control:,}: this causes a part "
        "of their difference."
    )
