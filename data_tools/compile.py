"""Compile verified trajectories into triples whose rendered documents fit the token budget.

Order: pieces are sorted by SHA-256 of (seed, trajectory id, piece id): a random permutation that no worker,
no other row and no library version can change, and that keeps the evidence's order when distractors are left out.
Budget: it counts the whole rendered document. Evidence, reasoning and answer are never cut. Distractors are
taken in the order of the permutation, each if it still fits; those left out are counted. Pieces that fill a
context toward its target length (fill.py) come in before the permutation and are distractors like any other.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from acc_megatron import __version__
from acc_megatron.data_tools.arms import ARMS, NOTICE, mask_observations
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
from acc_megatron.data_tools.conversation import Conversation, render_conversation
from acc_megatron.data_tools.decontaminate import NearDuplicates, NearSettings
from acc_megatron.data_tools.discover import Inputs, discover
from acc_megatron.data_tools.fill import Filler, Stock, Targets, piece_cost, stock_tables, stock_trajectory
from acc_megatron.data_tools.jsonl import BadRow, Row
from acc_megatron.data_tools.progress import Progress
from acc_megatron.data_tools.render import Rendered, render, render_turns, user_content
from acc_megatron.data_tools.resources import Resources, is_resource
from acc_megatron.data_tools.schema import Dropped, Piece, Trajectory, Triple
from acc_megatron.data_tools.sources.recognise import SOURCES, agent_of
from acc_megatron.data_tools.sources.recognise import described as seen_in
from acc_megatron.data_tools.table_text import TABLE_FORMATS, TableFormat
from acc_megatron.data_tools.tokenizer import Tokenizer
from acc_megatron.data_tools.turns import turns_of
from acc_megatron.errors import ConfigError, DataError

_KINDS = ("evidence", "distractor")
AGENTS = ("auto", *SOURCES)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileSettings:
    """`budget_tokens` bounds the whole rendered document; without `shuffle` pieces stay in the order met.

    `fill_tokens` gives agents a target length (see fill.py), `mask_observations` is the share of evidence whose
    text is withheld, and `arm` one of ARMS. Raises ConfigError for a value that contradicts another.
    """

    budget_tokens: int = 131_072
    distractors: bool = True
    shuffle: bool = True
    seed: int = 0
    table_format: TableFormat = "markdown"
    arm: str = "acc"
    mask_observations: float = 0.0
    fill_tokens: Targets = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ConfigError(f"unknown arm {self.arm!r}; known: {', '.join(ARMS)}")
        if not 0 <= self.mask_observations <= 1:
            raise ConfigError(f"--mask-observations is a share between 0 and 1, got {self.mask_observations}")
        if self.fill_tokens and not self.distractors:
            raise ConfigError("--fill-tokens adds distractors and --no-distractors leaves them out: give one of them")
        for agent, (_, longest) in self.fill_tokens.items():
            if longest > self.budget_tokens:
                raise ConfigError(
                    f"--fill-tokens aims at {longest} tokens for {agent}, beyond the {self.budget_tokens} of "
                    "--budget-tokens: lower the one or raise the other"
                )


def compile_inputs(
    inputs: list[Path],
    out: Path,
    *,
    agent: str,
    resources: list[Path],
    settings: CompileSettings,
    tokenizer: Tokenizer,
    max_bad_share: float = 0.01,
    near: NearSettings | None = None,
) -> dict[str, Any]:
    """Compile every run among the inputs into the folder `out`, published whole; returns its manifest.

    `out` gets triples.jsonl, quarantine.jsonl (every row left out: place, stage, reason) and manifest.json. Raises
    DataError for inputs that are absent or an `out` that is another's, TooManyBadRows when more than
    `max_bad_share` of the rows are unreadable or no known run; then nothing is written.
    """
    if agent not in AGENTS:
        raise DataError(f"unknown agent {agent!r}; known: {', '.join(AGENTS)}")
    if settings.table_format not in TABLE_FORMATS:
        raise DataError(f"unknown table format {settings.table_format!r}; known: {', '.join(TABLE_FORMATS)}")
    need_free_or_own(out)
    found = discover(inputs, resources, exclude=out, table_format=settings.table_format)
    with atomic_folder(out) as folder:
        progress = Progress("compile", found.num_bytes, unit="bytes")
        with CompileWriter(folder, progress) as writer, _filler(found, folder, agent, settings, tokenizer) as filler:
            duplicates = NearDuplicates(near) if near and near.is_on else None
            run = _Run(agent, found.resources, settings, tokenizer, filler, duplicates)
            for bad in found.resources.bad_rows:
                writer.note_bad_resource(bad)
            for row in found.rows(progress):
                _compile_row(row, run, writer)
        writer.need_few_bad(max_bad_share)
        summary = writer.summary()
        if not summary["documents_in"]:
            raise DataError(f"no run in {len(found.files)} files, only {found.resources.num_rows} resource rows")
        manifest = _manifest(found, folder, agent, settings, tokenizer) | summary
        if near and near.is_on:
            manifest["near_duplicates"] = near.as_dict()
        write_json(folder / MANIFEST, manifest)
    return manifest


def compile_trajectory(
    trajectory: Trajectory, settings: CompileSettings, tokenizer: Tokenizer, filler: Filler | None = None
) -> Triple:
    """The triple of a trajectory, with its token counts in `settings`.

    Raises Dropped: over_budget when evidence, reasoning and answer alone do not fit; empty_answer; and what
    `render` refuses.
    """
    if not trajectory.answer.strip():
        raise Dropped("empty_answer", "an answer of white space supervises nothing")
    pieces = [*trajectory.evidence, *(trajectory.distractors if settings.distractors else ())]
    frame = render_turns(user_content(trajectory.question, ()), trajectory.reasoning, trajectory.answer, tokenizer)
    costs = {piece.id: piece_cost(piece, tokenizer) for piece in pieces}
    if filler:
        room = min(filler.target_tokens(trajectory), settings.budget_tokens) - len(frame.ids) - sum(costs.values())
        filled = dict(filler.pieces(trajectory, room))
        pieces += filled
        costs |= {piece.id: tokens for piece, tokens in filled.items()}
    assert len(costs) == len(pieces), "a source gives each piece its own id"
    costs = {id_: tokens + len(str(len(pieces))) - 1 for id_, tokens in costs.items()}
    if settings.shuffle:
        pieces.sort(key=lambda piece: order_key(settings.seed, trajectory.id, piece.id))
    kept = _within_budget(pieces, costs, settings.budget_tokens - len(frame.ids))
    triple = _triple(trajectory, kept, settings)
    if settings.mask_observations:
        fit(triple, settings.budget_tokens, tokenizer)  # every arm drops the same documents
        masked = mask_observations(kept, settings.mask_observations, seed=settings.seed, name=trajectory.id)
        costs |= {piece.id: piece_cost(piece, tokenizer) for piece in masked if piece.text == NOTICE}
        triple = replace(triple, context=tuple(masked))
    triple, rendered = fit(triple, settings.budget_tokens, tokenizer)
    num_masked = sum(piece.text == NOTICE and piece.kind == "evidence" for piece in triple.context)
    triple.settings.update(
        tokens=len(rendered.ids),
        supervised_tokens=int(rendered.mask.sum()),
        **_tokens_by_kind(triple, costs),
        masked_pieces=num_masked,
        distractors_left_out=len(pieces) - len(triple.context),
        notes=trajectory.notes,
    )
    return triple


def _tokens_by_kind(triple: Triple, costs: dict[str, int]) -> dict[str, int]:
    """Tokens of evidence, of all distractors, and of those among them that filled the context."""
    kinds = [(piece.kind, piece.filled, costs[piece.id]) for piece in triple.context]
    return {
        "evidence_tokens": sum(tokens for kind, _, tokens in kinds if kind == "evidence"),
        "distractor_tokens": sum(tokens for kind, _, tokens in kinds if kind == "distractor"),
        "filled_tokens": sum(tokens for _, is_filled, tokens in kinds if is_filled),
    }


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


def fit(triple: Triple, budget_tokens: int, tokenizer: Tokenizer) -> tuple[Triple, Rendered]:
    """The triple rendered, without as many of its last distractors as it takes; Dropped('over_budget') else.

    Costs are sums over parts, so a context chosen by them may still be a few tokens too long.
    """
    kept = list(triple.context)
    while True:
        triple = replace(triple, context=tuple(kept))
        rendered = render(triple, tokenizer)
        if len(rendered.ids) <= budget_tokens:
            return triple, rendered
        last = next((i for i in reversed(range(len(kept))) if kept[i].kind == "distractor"), None)
        if last is None:
            detail = f"{len(rendered.ids)} tokens without any distractor, the budget is {budget_tokens}"
            raise Dropped("over_budget", detail, num_tokens=len(rendered.ids))
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
        settings=asdict(settings),
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """What every row of one compile shares."""

    agent: str
    resources: Resources
    settings: CompileSettings
    tokenizer: Tokenizer
    filler: Filler | None
    duplicates: NearDuplicates | None


def _compile_row(row: Row | BadRow, run: _Run, writer: CompileWriter) -> None:
    """One row to one document or one recorded reason; a resource row is neither."""
    if isinstance(row, BadRow):
        writer.quarantine(row, "read", row.reason, row.detail)
        return
    if is_resource(row.value):
        return
    name = agent_of(row.value)
    if name is None:
        writer.quarantine(row, "recognise", "unrecognised", seen_in(row.value))
        return
    stage, is_judged, num_tokens = "recognise", True, 0
    try:
        if run.agent not in ("auto", name):
            raise Dropped("other_agent", f"this is a {name} run, asked for were {run.agent} runs")
        stage = "evidence"
        trajectory = SOURCES[name].read(row, run.resources)
        stage, is_judged = "compile", trajectory.is_judged
        triple = compile_trajectory(trajectory, run.settings, run.tokenizer, run.filler)
        is_acc = run.settings.arm == "acc"
        document = triple if is_acc else _conversation(row, trajectory, triple, run)
        num_tokens = document.settings["tokens"]
        if run.duplicates:
            run.duplicates.check(trajectory)
        writer.write(document, is_judged=is_judged)
    except Dropped as dropped:
        dropped.num_tokens = dropped.num_tokens or num_tokens
        writer.drop(row, name, stage, dropped, is_judged=is_judged)


def _conversation(row: Row, trajectory: Trajectory, triple: Triple, run: _Run) -> Conversation:
    """The baseline's form of a run whose triple was made: this arm has no document that the method's has not."""
    turns = turns_of(row.value, trajectory)
    rendered = render_conversation(turns, run.tokenizer)
    if (num_tokens := len(rendered.ids)) > run.settings.budget_tokens:
        detail = f"{num_tokens} tokens of turns, the budget is {run.settings.budget_tokens}"
        raise Dropped("over_budget", detail, num_tokens=num_tokens)
    lengths = {"tokens": len(rendered.ids), "supervised_tokens": int(rendered.mask.sum())}
    settings = asdict(run.settings) | lengths | {"notes": trajectory.notes}
    return Conversation(
        id=triple.id,
        agent=triple.agent,
        turns=turns,
        ground_truth=triple.ground_truth,
        provenance=triple.provenance,
        settings=settings,
    )


@contextmanager
def _filler(
    found: Inputs, folder: Path, agent: str, settings: CompileSettings, tokenizer: Tokenizer
) -> Iterator[Filler | None]:
    """A first pass over the input into a stock on disk, which is gone when the block ends; None without targets."""
    if not settings.fill_tokens:
        yield None
        return
    path = folder / "stock.sqlite"
    stock = Stock(path, settings.seed)
    try:
        progress = Progress("compile: stock to fill from", found.num_bytes, unit="bytes")
        for row in found.rows(progress):
            progress.add()
            if isinstance(row, BadRow) or is_resource(row.value) or (name := agent_of(row.value)) is None:
                continue
            if name in settings.fill_tokens and agent in ("auto", name):
                with suppress(Dropped):  # the second pass records it
                    stock_trajectory(stock, SOURCES[name].read(row, found.resources), tokenizer)
        if "sql" in settings.fill_tokens:
            stock_tables(stock, found.resources, tokenizer)
        stock.seal()
        yield Filler(stock, found.resources, settings.fill_tokens, settings.seed, tokenizer)
    finally:
        stock.close()
        path.unlink()


def _manifest(
    found: Inputs, folder: Path, agent: str, settings: CompileSettings, tokenizer: Tokenizer
) -> dict[str, Any]:
    resources = found.resources
    used = dict.fromkeys((*found.files, *resources.databases.values(), *found.resource_files))
    return {
        "format": FORMAT,
        "format_version": 1,
        "code_version": __version__,
        "settings": {"agent": agent, **asdict(settings)},
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
