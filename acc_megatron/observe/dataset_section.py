"""The part of the report about a dataset: lengths, shares, drops, pass rates and packing."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from acc_megatron.common.html_page import Bars, Figure, Table
from acc_megatron.data.packing import pack
from acc_megatron.data_tools.convert.dataset_folder import DatasetFolder
from acc_megatron.data_tools.convert.manifest import MANIFEST, DatasetManifest
from acc_megatron.observe.compile_section import Stage, funnel, pass_table
from acc_megatron.observe.length_figure import length_figure


@dataclass(frozen=True, slots=True)
class DatasetSection:
    """What the page shows of a dataset."""

    name: str
    totals: str
    funnel: Bars
    agents: Table
    lengths: Figure | None
    drops: Table | None
    pass_rates: Table | None
    packing: Table
    fingerprint: str


def dataset_section(dataset: DatasetFolder, compiled: Path | None = None) -> DatasetSection:
    """Count and draw a dataset; the manifest in `compiled`, the output folder of `compile`, has the pass rates."""
    manifest = dataset.manifest
    num_dropped = sum(manifest["dropped"].values())
    stages: list[Stage] = []
    if compiled:
        made = _counts_of_compile(compiled)
        # a dataset of other inputs too has more rows than the compile gave it
        if made["documents_out"] == manifest["documents_in"]:
            stages.append(("runs in", made["documents_in"], made["dropped"], made["documents_out"], "triples"))
    stages.append(("rows in", manifest["documents_in"], manifest["dropped"], manifest["documents_out"], "documents"))
    return DatasetSection(
        name="Dataset",
        totals=(
            f"{manifest['documents_in']:,} rows in = {manifest['documents_out']:,} documents + {num_dropped:,} dropped"
            f". {manifest['tokens']:,} tokens, {manifest['supervised_tokens']:,} of them supervised."
        ),
        agents=_agents_table(dataset),
        funnel=funnel(stages),
        lengths=length_figure({agent: _lengths(dataset, agent) for agent in manifest["agents"]}),
        drops=_drops_table(manifest) if num_dropped else None,
        pass_rates=pass_table(compiled) if compiled else None,
        packing=_packing_table(dataset),
        fingerprint=dataset.fingerprint,
    )


def _counts_of_compile(compiled: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((compiled / MANIFEST).read_bytes())
        return {key: manifest[key] for key in ("documents_in", "documents_out", "dropped")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"documents_out": None}  # pass_table names the problem


def _drops_table(manifest: DatasetManifest) -> Table:
    """Dropped rows and tokens by reason: a few long documents can be much of the text."""
    rows = []
    for reason, count in sorted(manifest["dropped"].items(), key=lambda item: (-item[1], item[0])):
        tokens = manifest["dropped_tokens"].get(reason)
        lost = ("not tokenised", "") if tokens is None else (f"{tokens:,}", f"{tokens / manifest['tokens_in']:.2%}")
        rows.append((reason, f"{count:,}", f"{count / manifest['documents_in']:.2%}", *lost))
    return Table(("reason for the drop", "rows", "share", "tokens", "share"), rows, {1, 2, 3, 4})


def _agents_table(dataset: DatasetFolder) -> Table:
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
    return Table(header, rows, range(1, 8))


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


def _packing_table(dataset: DatasetFolder) -> Table:
    capacity = int(dataset.manifest["settings"]["max_tokens"])
    lengths = dataset.lengths
    rows = pack(lengths.tolist(), capacity)
    density = lengths.sum() / (len(rows) * capacity)
    fewest = -(-int(lengths.sum()) // capacity)
    # the attention of a packed row costs the sum of its documents' squared lengths
    work = np.array([np.square(lengths[row].astype(np.float64)).sum() for row in rows])
    facts = [
        ("Packed rows", f"{len(rows):,} of {capacity:,} tokens; every packing needs at least {fewest:,}"),
        ("Density", f"{density:.2%} of the tokens are documents, {1 - density:.2%} padding"),
        ("Balance of attention work", f"{work.mean() / work.max():.2f} (mean over largest packed row)"),
    ]
    return Table(("Packing by best fit, longest document first", ""), facts)


def _lengths(dataset: DatasetFolder, agent: str) -> np.ndarray:
    return dataset.lengths[pc.equal(dataset.samples["agent"], agent).to_numpy()]
