"""The dataset's part of the report: lengths, shares, drops, pass rates, and how well it packs."""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acc_megatron.data.packing import pack
from acc_megatron.data_tools.dataset_folder import MANIFEST, DatasetFolder
from acc_megatron.errors import DataError
from acc_megatron.observe.page import as_drawn, figure, svg, table

BIN_TOKENS = 2_000  # as in the paper's figure 3
COLOURS = ("#1f5fa8", "#c8641b", "#3b8a4f", "#7a4ea3", "#8a6d3b")


def dataset_section(dataset: DatasetFolder, compiled: Path | None = None) -> str:
    """The section as HTML; `compiled` is the folder the triples came from, whose manifest holds pass rates."""
    manifest = dataset.manifest
    num_dropped = sum(manifest["dropped"].values())
    text = (
        f"{manifest['documents_in']:,} rows in = {manifest['documents_out']:,} documents + {num_dropped:,} dropped. "
        f"{manifest['tokens']:,} tokens, {manifest['supervised_tokens']:,} of them supervised."
    )
    caption = f"Document lengths in bins of {BIN_TOKENS:,} tokens; the dashed line is the median."
    return (
        f"<h2>Dataset</h2><p>{text}</p>"
        + _agents_table(dataset)
        + figure(_length_figure(dataset), caption)
        + (_drops_table(manifest) if num_dropped else "")
        + (_pass_table(compiled) if compiled else "")
        + _packing(dataset)
        + f'<p class="note">Dataset fingerprint {html.escape(dataset.fingerprint)}</p>'
    )


def _drops_table(manifest: dict[str, Any]) -> str:
    """Rows and tokens by reason: a few long documents may be much of the text."""
    rows = []
    for reason, count in sorted(manifest["dropped"].items(), key=lambda item: (-item[1], item[0])):
        tokens = manifest["dropped_tokens"].get(reason)
        lost = ("never tokenised", "") if tokens is None else (f"{tokens:,}", f"{tokens / manifest['tokens_in']:.2%}")
        rows.append((reason, f"{count:,}", f"{count / manifest['documents_in']:.2%}", *lost))
    return table(("dropped for", "rows", "of all", "tokens", "of all"), rows, numbers={1, 2, 3, 4})


def _agents_table(dataset: DatasetFolder) -> str:
    pieces = _piece_tokens(dataset.samples)
    rows = []
    for agent, counts in dataset.manifest["agents"].items():
        lengths = _lengths(dataset, agent)
        shares = [f"{counts['supervised_tokens'] / counts['tokens']:.2%}"]
        for kind in ("evidence", "distractor"):
            tokens = pieces.get((agent, kind), 0)
            shares.append(f"{tokens / counts['tokens']:.1%}" if any(key[0] == agent for key in pieces) else "unknown")
        sizes = (counts["documents"], counts["tokens"], int(np.median(lengths)), int(lengths.max()))
        rows.append((agent, *(f"{size:,}" for size in sizes), *shares))
    header = ("agent", "documents", "tokens", "median length", "longest", "supervised", "evidence", "distractors")
    return table(header, rows, numbers=set(range(1, 8)))


def _piece_tokens(samples: pa.Table) -> dict[tuple[str, str], int]:
    """Tokens of context pieces by agent and kind."""
    column = samples["pieces"].combine_chunks()
    pieces = pc.list_flatten(column)
    agents = pc.take(samples["agent"].combine_chunks(), pc.list_parent_indices(column))
    flat = pa.table(
        {"agent": agents, "kind": pc.struct_field(pieces, "kind"), "tokens": pc.struct_field(pieces, "tokens")}
    )
    sums = flat.group_by(["agent", "kind"]).aggregate([("tokens", "sum")]).to_pylist()
    return {(row["agent"], row["kind"]): row["tokens_sum"] for row in sums}


def _pass_table(compiled: Path) -> str:
    """How many trajectories of each agent were kept, why others were not, and what the compile verified."""
    try:
        by_agent: dict[str, dict[str, Any]] = json.loads((compiled / MANIFEST).read_bytes())["by_agent"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{compiled} is not the output of a compile: {error!r}") from None
    rows = []
    for agent, counts in by_agent.items():
        kept, tried, rate = counts["documents_out"], counts["documents_in"], counts.get("pass_rate")
        shown = "not judged" if rate is None else f"{rate:.1%}"
        reasons = sorted(counts["dropped"].items(), key=lambda item: (-item[1], item[0]))
        why = ", ".join(f"{reason} {count:,}" for reason, count in reasons) or "none"
        rows.append((agent, f"{tried:,}", f"{kept:,}", f"{kept / max(1, tried):.1%}", shown, why))
    header = ("agent", "trajectories", "kept by compile", "of all", "pass rate", "dropped for")
    return table(header, rows, numbers={1, 2, 3, 4})


def _packing(dataset: DatasetFolder) -> str:
    capacity = int(dataset.manifest["settings"]["max_tokens"])
    lengths = dataset.lengths
    rows = pack(lengths.tolist(), capacity)
    density = lengths.sum() / (len(rows) * capacity)
    fewest = -(-int(lengths.sum()) // capacity)
    # a row's attention costs what its documents' lengths squared add up to
    work = np.array([np.square(lengths[row].astype(np.float64)).sum() for row in rows])
    facts = [
        ("Rows of documents", f"{len(rows):,} of {capacity:,} tokens; no packing needs fewer than {fewest:,}"),
        ("Density", f"{density:.2%} of the rows' tokens are documents, {1 - density:.2%} padding"),
        ("Balance of attention work", f"{work.mean() / work.max():.2f} (mean over largest row)"),
    ]
    return table(("Packed best fit, longest first", ""), facts)


def _lengths(dataset: DatasetFolder, agent: str) -> np.ndarray:
    return dataset.lengths[pc.equal(dataset.samples["agent"], agent).to_numpy()]


def _length_figure(dataset: DatasetFolder) -> str:
    import matplotlib.figure

    agents = list(dataset.manifest["agents"])
    drawing = matplotlib.figure.Figure(figsize=(9, 0.7 + 1.5 * len(agents)), layout="constrained")
    panels = drawing.subplots(len(agents), 1, sharex=True, squeeze=False)[:, 0]
    num_bins = int(dataset.lengths.max()) // BIN_TOKENS + 1
    edges = np.arange(num_bins + 1) * BIN_TOKENS
    for number, (agent, axis) in enumerate(zip(agents, panels, strict=True)):
        lengths = _lengths(dataset, agent)
        axis.hist(lengths, bins=list(edges), color=COLOURS[number % len(COLOURS)], edgecolor="white", linewidth=0.4)
        axis.axvline(float(np.median(lengths)), color="#333", linewidth=1, linestyle="--")
        axis.set_ylabel("documents")
        axis.set_title(as_drawn(f"{agent}: {len(lengths):,} documents"), fontsize=10, loc="left")
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("tokens")
    panels[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return svg(drawing)
