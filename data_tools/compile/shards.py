"""One shard of a compile: the documents of a slice of the input, and what became of every row of it.

What depends on other rows is decided when the shards are merged: duplicate ids, near-duplicates and the counts.
"""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypedDict

import numpy as np

from acc_megatron.common.atomic_files import atomic_folder
from acc_megatron.common.json_rows import BadRow, Row
from acc_megatron.data_tools.compile.compile_trajectory import check_verdict, compile_trajectory
from acc_megatron.data_tools.compile.distractor_fill import Filler
from acc_megatron.data_tools.compile.distractor_stock import Stock
from acc_megatron.data_tools.compile.distractor_tiers import with_tier
from acc_megatron.data_tools.compile.inputs import Inputs
from acc_megatron.data_tools.compile.messages import messages_row
from acc_megatron.data_tools.compile.near_duplicates import NearSettings, Signer
from acc_megatron.data_tools.compile.output import MESSAGES, TRIPLES, DocumentEntry, Place, entry_of, json_line
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.compile.stock_shards import STOCK, LentTask, write_lent
from acc_megatron.data_tools.conversation import Conversation
from acc_megatron.data_tools.convert.render import lengths_of
from acc_megatron.data_tools.convert.tool_definitions import TOOLS_RULE, tools_of_row, with_tools
from acc_megatron.data_tools.rows.row_files import DAMAGED_PARQUET
from acc_megatron.data_tools.schema import Trajectory, Triple, shallow_dict
from acc_megatron.data_tools.sharding.row_ranges import RowRange
from acc_megatron.data_tools.sharding.worker_processes import ShardCounts
from acc_megatron.data_tools.sources.agent_kind import AgentKind
from acc_megatron.data_tools.sources.formats.known_formats import turns_of
from acc_megatron.data_tools.sources.known_agents import agent_of, describe_row
from acc_megatron.data_tools.sources.resources import is_resource
from acc_megatron.data_tools.tokenizer.gigatoken_engine import with_engine, with_fallback
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError, Dropped

OUTCOMES, SIGNATURES = "outcomes.jsonl", "signatures.npy"


@dataclass(frozen=True, slots=True)
class CompileTask:
    """One shard to make: a slice of the input, and the folder to publish."""

    rows: RowRange
    folder: Path


class Outcome(TypedDict, total=False):
    """What became of a row: a document (`entry`) or a reason; `sidecar` says what a file without runs contains."""

    place: dict[str, Any]  # the fields of a Place
    entry: DocumentEntry
    num_bytes: int  # of the document in triples.jsonl
    message_bytes: int
    agent: str  # "" for a row that is not recognised
    stage: str
    reason: str
    detail: str
    num_tokens: int
    is_judged: bool
    sidecar: str


@dataclass(frozen=True, kw_only=True)
class ShardMaker:
    """Makes the shards of one compile; every worker has one, and keeps what it loads."""

    agent: str
    found: Inputs
    settings: CompileSettings
    near: NearSettings
    with_messages: bool
    tokenizer: Tokenizer
    work: Path

    def __call__(self, task: CompileTask) -> ShardCounts:
        """Compile one slice and publish the shard's folder."""
        where = f"compile: shard {task.folder.name}"
        return with_fallback(lambda tokenizer: self._make(task, tokenizer), self._fast, self.tokenizer, where)

    def write_lent(self, task: LentTask) -> ShardCounts:
        """Write what the runs of a slice lend to other runs."""

        def write(tokenizer: Tokenizer) -> ShardCounts:
            return write_lent(task, self._lenders(task.rows), tokenizer)

        return with_fallback(write, self._fast, self.tokenizer, f"compile: documents of slice {task.folder.name}")

    def load(self) -> None:
        """Load what all workers share, before they are started."""
        _ = self._signer

    @cached_property
    def _fast(self) -> Tokenizer:
        return with_engine(self.tokenizer, "auto")

    @cached_property
    def _signer(self) -> Signer | None:
        return Signer(self.near) if self.near.is_on else None

    @cached_property
    def _stock(self) -> Stock:
        return Stock.opened(self.work / STOCK, self.settings.seed)

    def _lenders(self, rows: RowRange) -> Iterator[Trajectory]:
        """The runs of the agent kinds with a target length; rows that are dropped are recorded later."""
        for row in self.found.rows(rows):
            if isinstance(row, BadRow) or is_resource(row.value) or (kind := agent_of(row.value)) is None:
                continue
            if kind.name in self.settings.fill_tokens and self.agent in ("auto", kind.name):
                with suppress(Dropped):
                    yield kind.read(row, self.found.resources)

    def _make(self, task: CompileTask, tokenizer: Tokenizer) -> ShardCounts:
        filler = self._filler(tokenizer)
        counts: ShardCounts = {"documents": 0, "tokens": 0, "dropped": 0}
        num_rows, is_damaged = 0, False
        with atomic_folder(task.folder) as folder, _ShardFiles(folder, with_messages=self.with_messages) as files:
            for row in self.found.rows(task.rows):
                num_rows += 1
                is_damaged |= isinstance(row, BadRow) and row.reason == DAMAGED_PARQUET
                if not isinstance(row, BadRow) and is_resource(row.value):
                    continue
                outcome = self._compile(row, tokenizer, filler, files)
                files.note({**outcome, "place": shallow_dict(Place.of(row))})
                counts["documents"] += "entry" in outcome
                counts["dropped"] += "reason" in outcome
                counts["tokens"] += outcome["entry"]["counts"]["tokens"] if "entry" in outcome else 0
            if contents := self.found.sidecars.get(task.rows.path):
                files.note({"sidecar": contents, "place": {"file": str(task.rows.path)}})
            expected = task.rows.num_rows
            if expected is not None and num_rows != expected and not is_damaged:
                raise DataError(
                    f"{task.rows.path} changed while it was read: {num_rows} rows, expected {expected}; run again"
                )
        return counts

    def _filler(self, tokenizer: Tokenizer) -> Filler | None:
        targets, seed = self.settings.fill_tokens, self.settings.seed
        return Filler(self._stock, self.found.resources, targets, seed, tokenizer) if targets else None

    def _compile(self, row: Row | BadRow, tokenizer: Tokenizer, filler: Filler | None, files: "_ShardFiles") -> Outcome:
        """Write the document of a row, or say why it has none."""
        if isinstance(row, BadRow):
            return {"agent": "", "stage": "read", "reason": row.reason, "detail": row.detail}
        kind = agent_of(row.value)
        if kind is None:
            detail = describe_row(row.value)
            return {"agent": "", "stage": "recognise", "reason": "unrecognised", "detail": detail}
        stage, is_judged, num_tokens = "recognise", True, 0
        try:
            if self.agent not in ("auto", kind.name):
                raise Dropped("other_agent", f"this is a {kind.name} run, and --agent asks for {self.agent} runs")
            stage = "evidence"
            trajectory = self._read(kind, row)
            stage, is_judged = "compile", trajectory.is_judged
            document = self._document(row, trajectory, tokenizer, filler)
            num_tokens = document.settings["tokens"]
            signatures = self._signer.signatures(trajectory) if self._signer else None
            return files.write(document, signatures, is_judged=is_judged)
        except Dropped as dropped:
            return {
                "agent": kind.name,
                "stage": stage,
                "reason": dropped.reason,
                "detail": dropped.detail,
                "num_tokens": dropped.num_tokens or num_tokens,
                "is_judged": is_judged,
            }

    def _read(self, kind: AgentKind, row: Row) -> Trajectory:
        """The run of a row, as the arm needs it."""
        is_acc = self.settings.arm == "acc"
        trajectory = (kind.read if is_acc else kind.read_run)(row, self.found.resources)
        if row.images_removed:
            trajectory = replace(trajectory, notes=trajectory.notes | {"images_removed": row.images_removed})
        return with_tier(trajectory, self.settings.distractor_tier)

    def _document(
        self, row: Row, trajectory: Trajectory, tokenizer: Tokenizer, filler: Filler | None
    ) -> Triple | Conversation:
        """The triple of a run, or its conversation: then of a run whose triple fits, or that has no parts of one."""
        if self.settings.arm == "acc":
            return compile_trajectory(trajectory, self.settings, tokenizer, filler)
        check_verdict(trajectory, self.settings)
        if trajectory.evidence:
            compile_trajectory(trajectory, self.settings, tokenizer, filler)  # drops the same runs as the arm acc
        return conversation_of(row, trajectory, self.settings, tokenizer)


class _ShardFiles:
    """The open files of a shard."""

    def __init__(self, folder: Path, *, with_messages: bool) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._triples = self._open(TRIPLES)
        self._outcomes = self._open(OUTCOMES)
        self._messages = self._open(MESSAGES) if with_messages else None
        self._signatures: list[np.ndarray] = []

    def __enter__(self) -> "_ShardFiles":
        return self

    def __exit__(self, *_: object) -> None:
        if self._signatures:
            np.save(self._folder / SIGNATURES, np.stack(self._signatures))
        self._stack.close()

    def write(self, document: Triple | Conversation, signatures: np.ndarray | None, *, is_judged: bool) -> Outcome:
        """Write a document."""
        message_bytes = self._messages.write(json_line(messages_row(document))) if self._messages else 0
        if signatures is not None:
            self._signatures.append(signatures)
        return {
            "entry": entry_of(document, is_judged=is_judged),
            "num_bytes": self._triples.write(json_line(document.to_dict())),
            "message_bytes": message_bytes,
        }

    def note(self, outcome: Outcome) -> None:
        """Write what became of a row."""
        self._outcomes.write(json_line({**outcome}))

    def _open(self, name: str) -> IO[bytes]:
        return self._stack.enter_context((self._folder / name).open("wb"))


def conversation_of(row: Row, trajectory: Trajectory, settings: CompileSettings, tokenizer: Tokenizer) -> Conversation:
    """The conversation of a run. Raises Dropped: over_budget, malformed, and the reasons of `render`."""
    tools = tools_of_row(row.value)
    if tools is None:
        raise Dropped("malformed", TOOLS_RULE)
    turns = with_tools(turns_of(row.value, trajectory), tools)
    num_tokens, num_supervised = lengths_of(turns, tokenizer)
    if num_tokens > settings.budget_tokens:
        detail = f"{num_tokens} tokens as turns, the budget is {settings.budget_tokens}"
        raise Dropped("over_budget", detail, num_tokens=num_tokens)
    counts = {"tokens": num_tokens, "supervised_tokens": num_supervised}
    counts["without_tools"] = int(not any(turn.tools for turn in turns))
    counts["without_triple"] = int(not trajectory.evidence)
    return Conversation(
        id=trajectory.id,
        agent=trajectory.agent,
        turns=turns,
        ground_truth=trajectory.ground_truth,
        provenance=shallow_dict(trajectory.provenance),
        settings=shallow_dict(settings) | counts | {"notes": trajectory.notes},
    )
