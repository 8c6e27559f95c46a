"""The part of the report about an output of compile: a funnel of its drops, agents, pass rates and lengths."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acc_megatron.common.html_page import Bars, Figure, Part, Table
from acc_megatron.data_tools.convert.manifest import MANIFEST
from acc_megatron.data_tools.statistics import Filters, lengths_by_agent
from acc_megatron.errors import DataError
from acc_megatron.observe.length_figure import length_figure


@dataclass(frozen=True, slots=True)
class CompileSection:
    """What the page shows of an output of compile."""

    name: str
    totals: str
    funnel: Bars
    agents: Table
    lengths: Figure | None


def compile_section(folder: Path) -> CompileSection:
    """Read the manifest of an output of compile, and the lengths of its documents."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    num_dropped = sum(manifest["dropped"].values())
    return CompileSection(
        name="Triples",
        totals=(
            f"{manifest['documents_in']:,} runs in = {manifest['documents_out']:,} triples + {num_dropped:,} dropped. "
            f"{manifest['tokens']:,} tokens, {manifest['supervised_tokens']:,} of them supervised."
        ),
        funnel=funnel(
            [("runs in", manifest["documents_in"], manifest["dropped"], manifest["documents_out"], "triples")]
        ),
        agents=pass_table(folder),
        lengths=length_figure(lengths_by_agent(folder, Filters())),
    )


Stage = tuple[str, int, Mapping[str, int], int, str]  # name of the input, rows, drops by reason, documents out, name


def funnel(stages: Sequence[Stage]) -> Bars:
    """What remains after each stage, and what each reason removed."""
    rows: list[Part] = []
    total = max(1, stages[0][1])
    for number, (name, num_in, dropped, num_out, out_name) in enumerate(stages):
        if number == 0:
            rows.append(Part(name, num_in, f"{num_in:,}", "distractor"))
        for reason, count in sorted(dropped.items(), key=lambda item: (-item[1], item[0])):
            rows.append(Part(f"− {reason}", count, f"{count:,} ({count / total:.1%})", "answer"))
        rows.append(Part(out_name, num_out, f"{num_out:,} ({num_out / total:.1%})", "evidence"))
    return Bars(rows, "What comes in, what each reason drops, and what remains.")


def pass_table(compiled: Path) -> Table:
    """For each agent: trajectories kept, the pass rate of those judged, and the reasons of the drops."""
    try:
        by_agent: dict[str, dict[str, Any]] = json.loads((compiled / MANIFEST).read_bytes())["by_agent"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{compiled} is not an output folder of acc-megatron compile: {error!r}") from None
    rows = []
    for agent, counts in by_agent.items():
        kept, tried, rate = counts["documents_out"], counts["documents_in"], counts.get("pass_rate")
        shown = "not judged" if rate is None else f"{rate:.1%}"
        reasons = sorted(counts["dropped"].items(), key=lambda item: (-item[1], item[0]))
        why = ", ".join(f"{reason} {count:,}" for reason, count in reasons) or "none"
        rows.append((agent, f"{tried:,}", f"{kept:,}", f"{kept / max(1, tried):.1%}", shown, why))
    header = ("agent", "trajectories", "kept by compile", "share", "pass rate", "reasons for drops")
    return Table(header, rows, {1, 2, 3, 4})
