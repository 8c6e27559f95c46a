"""The tables of the study in Markdown: what each arm read, and its scores in percent, mean ± deviation over seeds."""

from collections.abc import Sequence
from typing import Any

from summary import DEPTHS

Summary = dict[str, dict[str, tuple[float, float]]]  # arm -> measure -> (mean, deviation)


def tables(summary: Summary, trained: list[dict[str, Any]], lengths_pages: Sequence[int]) -> str:
    """All tables; those by depth are for the two longest lengths."""
    arms = [name for name in summary if name != "base"]
    parts = [_read(arms, trained)]
    for title, measure in (
        ("Retrieval correct (one road)", "retrieval"),
        ("Multi-hop correct (two or three roads)", "multi-hop"),
        ("Correct look-ups", "look-up"),
        ("Complete text correct (greedy decoding)", "greedy"),
        ("First town of the next road correct", "next"),
    ):
        columns = {f"{pages} pages": f"{measure}/{pages}" for pages in lengths_pages}
        parts.append(_scores(title, summary, columns | ({"no context": "no context"} if measure == "look-up" else {})))
    for pages in lengths_pages[-2:]:
        columns = {f"{depth} quarter": f"depth/{pages}/{depth}" for depth in DEPTHS}
        parts.append(_scores(f"Correct look-ups by depth of the evidence, {pages} pages", summary, columns))
    return "\n".join(parts)


def _read(arms: list[str], trained: list[dict[str, Any]]) -> str:
    rows = []
    for arm in arms:
        own = [row for row in trained if row["arm"] == arm]
        names = ("documents", "epochs", "tokens", "supervised_tokens")
        means = {name: sum(row[name] for row in own) / len(own) for name in names}
        rows.append([arm, *(f"{value:,.0f}" for value in means.values())])
    return _markdown(
        "What each arm read (mean over seeds)", ["arm", "documents", "epochs", "tokens", "supervised tokens"], rows
    )


def _scores(title: str, summary: Summary, columns: dict[str, str]) -> str:
    rows = []
    for name, measures in summary.items():
        shares = [measures[measure] for measure in columns.values()]
        is_base = name == "base"  # only one model, so no deviation
        rows.append([name, *(f"{100 * mean:.0f}" + ("" if is_base else f" ± {100 * sd:.0f}") for mean, sd in shares)])
    return _markdown(title, ["%", *columns], rows)


def _markdown(title: str, header: list[str], rows: list[list[str]]) -> str:
    lines = [f"**{title}**", "", f"| {' | '.join(header)} |", f"|---{'|---:' * (len(header) - 1)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])
