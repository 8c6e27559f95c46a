"""Reasoning from a teacher model for compiled questions: ask, verify, keep answers that match the ground truth.

A question is asked up to `best_of` times, each time with another seed, until the verifier of its agent kind accepts the
answer. The ground truth remains the supervised answer; the teacher's answer is kept in `settings`. In the v2 variant
(the paper's appendix F) the teacher of a SWE question is given the verified patch, at temperature 0, and its final
response becomes the reasoning without a filter. Rows are written in the order of the input.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from acc_megatron import __version__
from acc_megatron.common.answer_cache import AnswerCache, Budget
from acc_megatron.common.atomic_files import atomic_folder, write_json
from acc_megatron.common.chat_client import Client, ClientSettings, Reply
from acc_megatron.common.json_rows import BadRow, Row, read_jsonl
from acc_megatron.common.progress import Progress
from acc_megatron.data_tools.compile.compile_trajectory import fit
from acc_megatron.data_tools.compile.output import (
    MANIFEST,
    REFUSED,
    TRIPLES,
    CompileWriter,
    Place,
    check_output_folder,
    described,
)
from acc_megatron.data_tools.convert.render import user_content
from acc_megatron.data_tools.reason.prices import Prices
from acc_megatron.data_tools.schema import Triple
from acc_megatron.data_tools.sources.known_agents import AGENT_KINDS
from acc_megatron.data_tools.sources.verify_answer import Verifier
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import ConfigError, DataError, Dropped

FORMAT = "acc-megatron reasoned triples"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonSettings:
    """How a question is asked; `budget_tokens` limits the document including its new reasoning."""

    best_of: int = 1
    temperature: float = 0.6
    max_output_tokens: int = 32_768
    swe_v2: bool = False
    budget_tokens: int = 131_072

    def __post_init__(self) -> None:
        if self.best_of < 1 or self.max_output_tokens < 1:
            raise ConfigError("--best-of and --max-output-tokens must be at least 1")


@dataclass(frozen=True, slots=True)
class _Teacher:
    """What is needed to ask a question and to judge the answer."""

    client: Client
    model: str
    settings: ReasonSettings
    verifier: Verifier
    tokenizer: Tokenizer


def reason_folder(
    folder: Path,
    out: Path,
    settings: ReasonSettings,
    client: ClientSettings,
    *,
    budget: Budget,
    cache_path: Path,
    verifier: Verifier,
    tokenizer: Tokenizer,
    prices: Prices | None = None,
) -> dict[str, Any]:
    """Write the triples of a compile folder, with new reasoning, into the folder `out`; returns its manifest.

    Triples with a rejected answer go to quarantine.jsonl with the reason. Raises DataError for a folder without ACC
    triples and for an unusable endpoint; the cache keeps all answers until then.
    """
    source = folder / TRIPLES
    if not source.is_file():
        raise DataError(f"{source} is missing: give the output folder of 'acc-megatron compile'")
    for option, path in (("--out", out), ("--cache", cache_path)):
        if path.resolve().is_relative_to(folder.resolve()):
            raise DataError(
                f"{option} {path} is inside the input folder {folder}, which the next compile replaces: choose another"
            )
    check_output_folder(out, FORMAT, "reason")
    cache_path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(out) as made, AnswerCache(cache_path, budget) as cache:
        if cache.num_interrupted:
            print(f"reason: the last run ended with {cache.num_interrupted} requests in flight", file=sys.stderr)
        prices = prices or Prices()
        progress = Progress("reason", source.stat().st_size, unit="bytes", note=lambda: prices.line(cache.used()))
        with CompileWriter(made, progress) as writer:
            asyncio.run(
                _reason_rows(read_jsonl(source), client, cache, settings, verifier, tokenizer, writer, progress)
            )
            progress.reach(source.stat().st_size)
        summary = writer.summary()
        manifest = {
            "format": FORMAT,
            "format_version": 1,
            "code_version": __version__,
            "settings": asdict(settings) | {"model": client.model, "endpoint": client.shown_url},
            "tokenizer": {"name": tokenizer.name, "sha256": tokenizer.sha256},
            "inputs": [described(source)],
            "requests": cache.spent()
            | prices.described(cache.used())
            | {"from_cache": cache.num_hits, "interrupted": cache.num_interrupted},
            "files": {name: described(made / name) | {"file": name} for name in (TRIPLES, REFUSED)},
        } | summary
        write_json(made / MANIFEST, manifest)
    return manifest


async def _reason_rows(
    rows: Iterator[Row | BadRow],
    client_settings: ClientSettings,
    cache: AnswerCache,
    settings: ReasonSettings,
    verifier: Verifier,
    tokenizer: Tokenizer,
    writer: CompileWriter,
    progress: Progress,
) -> None:
    """Process a bounded window of rows concurrently; results are written in the order of the rows."""
    window: deque[tuple[Row | BadRow, asyncio.Task[Triple]]] = deque()
    async with Client(client_settings, cache) as client:
        teacher = _Teacher(client, client_settings.model, settings, verifier, tokenizer)
        try:
            for row in rows:
                window.append((row, asyncio.create_task(_reason_row(row, teacher))))
                if len(window) >= 4 * client_settings.concurrency:
                    progress.reach(window[0][0].byte_offset)
                    await _write(*window.popleft(), writer)
            while window:
                progress.reach(window[0][0].byte_offset)
                await _write(*window.popleft(), writer)
        finally:
            tasks = [task for _, task in window]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _write(row: Row | BadRow, task: asyncio.Task[Triple], writer: CompileWriter) -> None:
    if isinstance(row, BadRow):
        writer.quarantine(Place.of(row), "read", row.reason, row.detail)
        task.cancel()
        return
    agent = str(row.value.get("agent", "unknown"))
    try:
        writer.write(await task)
    except Dropped as dropped:
        writer.drop(Place.of(row), agent, "reason", dropped)


async def _reason_row(row: Row | BadRow, teacher: _Teacher) -> Triple:
    if isinstance(row, BadRow):
        raise Dropped(row.reason, row.detail)
    where = f"{Path(row.file).name}:{row.line}"
    if "turns" in row.value:
        raise DataError(f"{where} is a conversation of the agent-sft arm, which needs no reasoning")
    triple = Triple.from_dict(row.value, where)
    kind = AGENT_KINDS.get(triple.agent)
    if teacher.settings.swe_v2 and kind and kind.reveal_request:
        return await _explain_patch(triple, kind.reveal_request.format(answer=triple.answer), teacher)
    rejected = Dropped("not_asked", "best_of is below 1")
    for attempt in range(teacher.settings.best_of):
        body = _body(user_content(triple.question, triple.context), teacher.settings.temperature, attempt, teacher)
        try:
            reply = await _ask(body, triple, teacher)
            if not reply.reasoning.strip():
                raise Dropped("no_reasoning", "the reply has an answer but no reasoning")
            _need_plain(reply.answer, teacher.tokenizer)
            await asyncio.to_thread(teacher.verifier.check, triple, reply.answer)
            return await asyncio.to_thread(_reasoned, triple, reply.reasoning, attempt, reply.answer, teacher)
        except Dropped as dropped:
            rejected = dropped
            if dropped.reason == "budget_exhausted":
                break
    raise rejected


async def _explain_patch(triple: Triple, request: str, teacher: _Teacher) -> Triple:
    """v2: the final response to the question with its patch, whether it is correct or not."""
    content = f"{user_content(triple.question, triple.context)}\n\n{request}"
    reply = await _ask(_body(content, 0.0, 0, teacher), triple, teacher)
    if not reply.answer:
        raise Dropped("no_reasoning", "the final response is empty")
    return await asyncio.to_thread(_reasoned, triple, reply.answer, 0, "", teacher)


async def _ask(body: dict[str, Any], triple: Triple, teacher: _Teacher) -> Reply:
    """The complete reply of the teacher; a reply that was cut off would teach to stop in the middle."""
    reply = await teacher.client.ask(body, _reserved(triple, teacher))
    if reply.finish != "stop":
        raise Dropped("cut_off", f"finish_reason is {reply.finish!r}")
    return replace(reply, answer=reply.answer.strip())


def _body(content: str, temperature: float, attempt: int, teacher: _Teacher) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": teacher.settings.max_output_tokens,
        "temperature": temperature,
        "seed": attempt,
        "stream": False,
    }


def _reserved(triple: Triple, teacher: _Teacher) -> int:
    """The largest possible cost of a request: the tokens of the document and of the longest reply."""
    tokens = triple.settings.get("tokens")
    return (tokens if isinstance(tokens, int) else teacher.settings.budget_tokens) + teacher.settings.max_output_tokens


def _need_plain(answer: str, tokenizer: Tokenizer) -> None:
    found = tokenizer.control_strings.search(answer)
    if found:
        raise Dropped("control_string_in_answer", f"the teacher's answer contains {found[0]!r}")


def _reasoned(triple: Triple, reasoning: str, attempt: int, answer: str, teacher: _Teacher) -> Triple:
    """The triple with its new reasoning; distractors, but no evidence, are removed to stay within the budget."""
    source = f"teacher:{teacher.model}"
    triple, lengths = fit(
        replace(triple, reasoning=reasoning, reasoning_source=source), teacher.settings.budget_tokens, teacher.tokenizer
    )
    settings = triple.settings | {
        "tokens": lengths.num_tokens,
        "supervised_tokens": lengths.num_supervised,
        "teacher": {"model": teacher.model, "attempt": attempt, "answer": answer},
    }
    return replace(triple, settings=settings)
