"""What the pages of the analyses share: sources, tasks and the colours of checkpoints, on one self-contained page."""

import html
from pathlib import Path
from typing import Any

from acc_megatron.data_tools.atomic import atomic_file, write_json
from acc_megatron.observe.page import STYLE, table
from acc_megatron.ranks import say

COLOURS = ("#888888", "#1f5fa8", "#c8641b", "#3b8a4f", "#8a3fa0", "#8c6d1f", "#2a9d9d", "#555555")
# of the checkpoint that others are held against, of the next, of the control: told apart where they lie on each other
STROKES: tuple[dict[str, Any], ...] = (
    {"color": COLOURS[0], "linewidth": 2.6},
    {"color": COLOURS[1], "linewidth": 1.5},
    {"color": COLOURS[2], "linewidth": 1.5, "linestyle": (0, (4, 2))},
)


def publish(out: Path, name: str, result: dict[str, Any], body: str) -> Path:
    """Write `out/name.json` and `out/name.html`; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{name}.json", result)
    title = html.escape(f"acc-megatron: {name}")
    rows = [
        (task, str(len(of["documents"])), f"{of['num_documents']:,}", f"{of['left_out_for_length']:,}")
        for task, of in result["tasks"].items()
    ]
    tasks = table(("task", "documents", "drawn from", "left out for their length"), rows, numbers={1, 2, 3})
    note = _control_note(result["checkpoints"])
    if note:
        say(f"note: {note}")
    page = out / f"{name}.html"
    text = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
        f"<h1>{title}</h1>{_checkpoints(result['checkpoints'], note)}{tasks}{body}</html>"
    )
    with atomic_file(page) as file:
        file.write(text.encode())
    return page


def _checkpoints(checkpoints: dict[str, Any], control_note: str) -> str:
    """Where they lie and on how many tokens each was trained."""
    tokens = {name: of["trained_tokens"] for name, of in checkpoints.items()}
    rows = [
        (name, of["path"], "not known" if tokens[name] is None else f"{tokens[name]:,}")
        for name, of in checkpoints.items()
    ]
    counted = "Layers, heads and experts count from 0."
    note = f"Trained tokens are steps x rows x row length, padding included. {control_note} {counted}"
    header = ("checkpoint", "path", "trained tokens")
    return table(header, rows, numbers={2}) + f"<p class=note>{note}</p>"


def _control_note(checkpoints: dict[str, Any]) -> str:
    """Empty unless a control is not known to be matched: it is one only where it was trained on as many tokens."""
    if not {"after", "control"} <= checkpoints.keys():
        return ""
    after, control = (checkpoints[name]["trained_tokens"] for name in ("after", "control"))
    if None in (after, control):
        return "It is not known whether after and control were trained on as many tokens."
    if after == control:
        return ""
    return (
        f"After and control were not trained on as many tokens, but on {after:,} and {control:,}: part of their "
        "difference is that."
    )
