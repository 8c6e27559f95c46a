"""Compile verified trajectories into triples (q, C, r, y) whose rendered documents fit the token budget.

Order: pieces are sorted by SHA-256 of (seed, trajectory id, piece id): a random permutation that no worker,
no other row and no library version can change, and that keeps the evidence's order when distractors are left out.
Budget: it counts the whole rendered document. Evidence, reasoning and answer are never cut. Distractors are
taken in the order of the permutation, each if it still fits; those left out are counted.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from acc_megatron import __version__
from acc_megatron.data_tools.atomic import atomic_folder, write_json
from acc_megatron.data_tools.compile_output import (
    FORMAT,
    MANIFEST,
    REFUSED,
    TRIPLES,
    CompileWriter,
    described,
    need_free_or_own,
)
from acc_megatron.data_tools.discover import Inputs, discover
from acc_megatron.data_tools.jsonl import BadRow, Row
from acc_megatron.data_tools.render import Rendered, render, render_turns, user_content
from acc_megatron.data_tools.resources import Resources, is_resource
from acc_megatron.data_tools.row_files import rows_of
from acc_megatron.data_tools.schema import Dropped, Piece, Trajectory, Triple
from acc_megatron.data_tools.sources.recognise import SOURCES, agent_of
from acc_megatron.data_tools.sources.recognise import described as seen_in
from acc_megatron.data_tools.table_text import TABLE_FORMATS, TableFormat
from acc_megatron.data_tools.tokenizer import Tokenizer
from acc_megatron.errors import DataError, TooManyBadRows

_KINDS = ("evidence", "distractor")
AGENTS = ("auto", *SOURCES)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileSettings:
    """`budget_tokens` bounds the whole rendered document; without `shuffle` pieces stay in the order met."""

    budget_tokens: int = 131_072
    distractors: bool = True
    shuffle: bool = True
    seed: int = 0
    table_format: TableFormat = "markdown"


def compile_inputs(
    inputs: list[Path],
    out: Path,
    *,
    agent: str,
    resources: list[Path],
    settings: CompileSettings,
    tokenizer: Tokenizer,
    max_bad: int | None = None,
) -> dict[str, Any]:
    """Compile every run among the inputs into the folder `out`, published whole; returns its manifest.

    `out` gets triples.jsonl, quarantine.jsonl (every row left out: place, stage, reason) and manifest.json. Raises
    DataError for inputs that are absent or an `out` that is another's, TooManyBadRows when more than `max_bad`
    rows are unreadable or no known run; then nothing is written.
    """
    if agent not in AGENTS:
        raise DataError(f"unknown agent {agent!r}; known: {', '.join(AGENTS)}")
    if settings.table_format not in TABLE_FORMATS:
        raise DataError(f"unknown table format {settings.table_format!r}; known: {', '.join(TABLE_FORMATS)}")
    need_free_or_own(out)
    found = discover(inputs, resources, exclude=out, table_format=settings.table_format)
    with atomic_folder(out) as folder:
        with CompileWriter(folder) as writer:
            for bad in found.resources.bad_rows:
                writer.note_bad_resource(bad)
            for row in (row for file in found.files for row in rows_of(file)):
                _compile_row(row, agent, found.resources, settings, tokenizer, writer)
                if max_bad is not None and writer.num_bad > max_bad:
                    where = f"the last is {row.file}:{row.line}"
                    raise TooManyBadRows(f"more than {max_bad} rows are unreadable or no known run; {where}")
        summary = writer.summary()
        if not summary["documents_in"]:
            raise DataError(f"no run in {len(found.files)} files, only {found.resources.num_rows} resource rows")
        manifest = _manifest(found, folder, agent, settings, tokenizer) | summary
        write_json(folder / MANIFEST, manifest)
    return manifest


def compile_trajectory(trajectory: Trajectory, settings: CompileSettings, tokenizer: Tokenizer) -> Triple:
    """The triple of a trajectory, with its token counts in `settings`.

    Raises Dropped: over_budget when evidence, reasoning and answer alone do not fit; empty_answer; and what
    `render` refuses.
    """
    if not trajectory.answer.strip():
        raise Dropped("empty_answer", "an answer of white space supervises nothing")
    distractors = trajectory.distractors if settings.distractors else ()
    pieces = (*trajectory.evidence, *distractors)
    if settings.shuffle:
        pieces = tuple(sorted(pieces, key=lambda piece: order_key(settings.seed, trajectory.id, piece.id)))
    frame = render_turns(user_content(trajectory.question, ()), trajectory.reasoning, trajectory.answer, tokenizer)
    assert len({piece.id for piece in pieces}) == len(pieces), "a source gives each piece its own id"
    costs = {p.id: tokenizer.count(f"\n\n[Document {len(pieces)}] {p.title}\n{p.text}") for p in pieces}
    kept = _within_budget(pieces, costs, settings.budget_tokens - len(frame.ids))
    triple, rendered = _fit(trajectory, kept, settings, tokenizer)
    counted = {kind: sum(costs[piece.id] for piece in triple.context if piece.kind == kind) for kind in _KINDS}
    triple.settings.update(
        tokens=len(rendered.ids),
        supervised_tokens=int(rendered.mask.sum()),
        evidence_tokens=counted["evidence"],
        distractor_tokens=counted["distractor"],
        distractors_left_out=len(pieces) - len(triple.context),
        notes=trajectory.notes,
    )
    return triple


def order_key(seed: int, trajectory_id: str, piece_id: str) -> bytes:
    """Where a piece stands in the permutation of its trajectory."""
    return hashlib.sha256(f"{seed}\0{trajectory_id}\0{piece_id}".encode()).digest()


def _within_budget(pieces: Sequence[Piece], costs: dict[str, int], room_tokens: int) -> list[Piece]:
    """All evidence, and each distractor in turn that still fits beside it."""
    room_tokens -= sum(costs[piece.id] for piece in pieces if piece.kind == "evidence")
    kept = []
    for piece in pieces:
        if piece.kind == "distractor":
            if costs[piece.id] > room_tokens:
                continue
            room_tokens -= costs[piece.id]
        kept.append(piece)
    return kept


def _fit(
    trajectory: Trajectory, kept: list[Piece], settings: CompileSettings, tokenizer: Tokenizer
) -> tuple[Triple, Rendered]:
    """Render for the exact length; costs are sums over parts, so the last distractors may still have to go."""
    while True:
        triple = _triple(trajectory, kept, settings)
        rendered = render(triple, tokenizer)
        if len(rendered.ids) <= settings.budget_tokens:
            return triple, rendered
        last = next((i for i in reversed(range(len(kept))) if kept[i].kind == "distractor"), None)
        if last is None:
            detail = f"{len(rendered.ids)} tokens without any distractor, the budget is {settings.budget_tokens}"
            raise Dropped("over_budget", detail)
        del kept[last]


def _triple(trajectory: Trajectory, context: Sequence[Piece], settings: CompileSettings) -> Triple:
    return Triple(
        id=trajectory.id,
        agent=trajectory.agent,
        question=trajectory.question,
        context=tuple(context),
        reasoning=trajectory.reasoning,
        answer=trajectory.answer,
        reasoning_source=trajectory.reasoning_source,
        ground_truth=trajectory.ground_truth,
        provenance=asdict(trajectory.provenance),
        settings={"arm": "acc", **asdict(settings)},
    )


def _compile_row(
    row: Row | BadRow,
    agent: str,
    resources: Resources,
    settings: CompileSettings,
    tokenizer: Tokenizer,
    writer: CompileWriter,
) -> None:
    """One row to one triple or one recorded reason; a resource row is neither."""
    if isinstance(row, BadRow):
        writer.quarantine(row, "read", row.reason, row.detail)
        return
    if is_resource(row.value):
        return
    name = agent_of(row.value)
    if name is None:
        writer.quarantine(row, "recognise", "unrecognised", seen_in(row.value))
        return
    if agent not in ("auto", name):
        writer.quarantine(row, "recognise", "other_agent", f"this is a {name} run, asked for were {agent} runs")
        return
    stage = "evidence"
    try:
        trajectory = SOURCES[name].read(row, resources)
        stage = "compile"
        writer.write(compile_trajectory(trajectory, settings, tokenizer))
    except Dropped as dropped:
        writer.drop(row, name, stage, dropped)


def _manifest(
    found: Inputs, folder: Path, agent: str, settings: CompileSettings, tokenizer: Tokenizer
) -> dict[str, Any]:
    resources = found.resources
    used = dict.fromkeys((*found.files, *resources.databases.values(), *found.resource_files))
    return {
        "format": FORMAT,
        "format_version": 1,
        "code_version": __version__,
        "settings": {"agent": agent, "arm": "acc", **asdict(settings)},
        "tokenizer": {"name": tokenizer.name, "sha256": tokenizer.sha256},
        "inputs": [described(path) for path in used],
        "ignored_files": [str(path) for path in found.ignored],
        "resources": {
            "rows": resources.num_rows,
            "instances": len(resources.instances),
            "stores": len(resources.stores),
            "databases": len(resources.databases),
            "bad_rows": len(resources.bad_rows),
        },
        "files": {name: described(folder / name) | {"file": name} for name in (TRIPLES, REFUSED)},
    }
