"""Filling a context toward a target length with real documents that are no evidence of its question.

Search contexts take pages of other runs and SQL contexts other tables, from a stock on disk; SWE contexts take
other files of their own repository at the base commit. A piece is passed over when its id, title or text is that
of evidence of the same question (also as another run answered it), or when it spells a search question's answer.
The stock lies in the order of SHA-256 of (seed, id) and a trajectory walks it by a stride of its own.
"""

import hashlib
import math
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from acc_megatron.data_tools.resources import Resources
from acc_megatron.data_tools.schema import Piece, Trajectory
from acc_megatron.data_tools.sources.search_pages import page_key
from acc_megatron.data_tools.sqlite_readonly import QueryError, open_readonly
from acc_megatron.data_tools.table_text import table_text
from acc_megatron.data_tools.tokenizer import Tokenizer
from acc_megatron.errors import ConfigError

STOCK_BYTES = 4 << 30
_MIN_ROOM_TOKENS = 32
_NUMBER_TOKENS = 2  # further digits of a piece's number in a long context
_MAX_MISSES = 64  # pieces in a row that do not fit or may not be used: the context is as full as it gets
_SHORTEST_ANSWER = 4  # characters; shorter ones ("Yes", "12") stand in any page by accident
_TARGET = re.compile(r"(search|swe|sql)=(\d+)(?:\.\.(\d+))?")

Targets = dict[str, tuple[int, int]]  # agent -> shortest and longest document aimed at, in tokens


def parse_targets(settings: list[str]) -> Targets:
    """Targets from `search=100000` (one length) or `search=60000..100000` (any in between, equally likely)."""
    targets: Targets = {}
    for setting in settings:
        match = _TARGET.fullmatch(setting)
        low = int(match[2]) if match else 0
        high = int(match[3] or low) if match else 0
        if not match or not 0 < low <= high:
            raise ConfigError(f"cannot read --fill-tokens {setting!r}: write search=100000 or search=60000..100000")
        targets[match[1]] = (low, high)
    return targets


def piece_key(id_: str) -> str:
    """What two spellings of one url share; other ids only lose their case."""
    return page_key(id_).casefold()


class Stock:
    """Pieces on disk, once for each id; above `max_bytes` those last in the seeded order are left out."""

    def __init__(self, path: Path, seed: int, max_bytes: int = STOCK_BYTES) -> None:
        self._seed, self._max_bytes, self._num_bytes = seed, max_bytes, 0
        self._last_key: bytes | None = None
        self._sizes: dict[str, int] = {}
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN;"
            "CREATE TABLE stock (key BLOB PRIMARY KEY, pool TEXT, bytes INT, tokens INT, id TEXT, title TEXT,"
            " text TEXT) WITHOUT ROWID;"
            "CREATE TABLE evidence (question BLOB, key TEXT, PRIMARY KEY (question, key)) WITHOUT ROWID;"
            "CREATE TABLE place (pool TEXT, number INT, key BLOB, PRIMARY KEY (pool, number)) WITHOUT ROWID;"
        )

    def add(self, pool: str, piece: Piece, tokenizer: Tokenizer) -> None:
        """Keep a piece in its pool; the first of several with one id wins."""
        key = _digest(str(self._seed), pool, piece_key(piece.id))
        known = self._database.execute("SELECT 1 FROM stock WHERE key = ?", (key,)).fetchone()
        if known or (self._last_key is not None and key >= self._last_key):
            return
        size = len(piece.text.encode()) + len(piece.title.encode())
        row = (key, pool, size, piece_cost(piece, tokenizer), piece.id, piece.title, piece.text)
        self._database.execute("INSERT INTO stock VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._num_bytes += size
        if self._num_bytes > self._max_bytes:
            self._shrink()

    def note_evidence(self, trajectory: Trajectory) -> None:
        """Remember what is evidence of a question, in whichever run of it."""
        rows = [(_digest(trajectory.question), piece_key(piece.id)) for piece in trajectory.evidence]
        self._database.executemany("INSERT OR IGNORE INTO evidence VALUES (?, ?)", rows)

    def seal(self) -> None:
        """Number the pieces of each pool; nothing is added after this."""
        self._database.execute(
            "INSERT INTO place SELECT pool, row_number() OVER (PARTITION BY pool ORDER BY key) - 1, key FROM stock"
        )
        self._database.execute("COMMIT")
        self._sizes = dict(self._database.execute("SELECT pool, count(*) FROM place GROUP BY pool"))

    def sizes(self) -> dict[str, int]:
        """Pieces in each pool."""
        return dict(sorted(self._sizes.items()))

    def evidence_keys(self, question: str) -> set[str]:
        """Keys of everything that is evidence of this question in any run."""
        rows = self._database.execute("SELECT key FROM evidence WHERE question = ?", (_digest(question),))
        return {key for (key,) in rows}

    def walk(self, pool: str, name: str) -> Iterator[tuple[Piece, int]]:
        """Every piece of a pool once, with its tokens, in the order that `name` gives it."""
        size = self._sizes.get(pool, 0)
        digest = _digest(str(self._seed), "walk", name)
        start, stride = int.from_bytes(digest[:8]), int.from_bytes(digest[8:16]) % max(size, 1)
        while size and math.gcd(stride, size) != 1:
            stride += 1
        for step in range(size):
            row = self._database.execute(
                "SELECT id, title, text, tokens FROM place JOIN stock USING (key) WHERE place.pool = ? AND number = ?",
                (pool, (start + step * stride) % size),
            ).fetchone()
            yield Piece(id=row[0], title=row[1], text=row[2], kind="distractor", filled=True), row[3]

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _shrink(self) -> None:
        """Leave out the last tenth in key order, and whatever would come to lie there."""
        rows = self._database.execute("SELECT key, bytes FROM stock ORDER BY key DESC")
        for key, size in rows:
            self._last_key = key
            self._num_bytes -= size
            if self._num_bytes <= 0.9 * self._max_bytes:
                break
        self._database.execute("DELETE FROM stock WHERE key >= ?", (self._last_key,))


class Filler:
    """Gives a trajectory more distractors, toward the target length of its agent."""

    def __init__(self, stock: Stock, resources: Resources, targets: Targets, seed: int, tokenizer: Tokenizer) -> None:
        self._stock, self._resources, self._targets = stock, resources, targets
        self._seed, self._tokenizer = seed, tokenizer

    def target_tokens(self, trajectory: Trajectory) -> int:
        """The document length to aim at; 0 for an agent whose contexts keep their natural length."""
        low, high = self._targets.get(trajectory.agent, (0, 0))
        draw = int.from_bytes(_digest(str(self._seed), "target", trajectory.id)[:8])
        return low + draw % (high - low + 1)

    def pieces(self, trajectory: Trajectory, room_tokens: int) -> Iterator[tuple[Piece, int]]:
        """Pieces with their tokens that together fit into `room_tokens`."""
        own = (*trajectory.evidence, *trajectory.distractors)
        taken = self._stock.evidence_keys(trajectory.question) | {piece_key(piece.id) for piece in own}
        titles, texts = {piece.title.casefold() for piece in own}, {piece.text for piece in own}
        truths = (trajectory.ground_truth, *trajectory.notes.get("aliases", ())) if trajectory.agent == "search" else ()
        answers = [truth.casefold() for truth in truths if len(truth) >= _SHORTEST_ANSWER]
        misses = 0
        for piece, tokens in self._candidates(trajectory):
            if room_tokens < _MIN_ROOM_TOKENS or misses == _MAX_MISSES:
                return
            is_known = piece_key(piece.id) in taken or piece.title.casefold() in titles or piece.text in texts
            said = f"{piece.title}\n{piece.text}".casefold() if answers else ""
            tells = any(answer in said for answer in answers)
            if is_known or tells or tokens + _NUMBER_TOKENS > room_tokens:
                misses += 1
                continue
            misses = 0
            room_tokens -= tokens + _NUMBER_TOKENS
            titles.add(piece.title.casefold())
            yield piece, tokens

    def _candidates(self, trajectory: Trajectory) -> Iterator[tuple[Piece, int]]:
        if trajectory.agent != "swe":
            yield from self._stock.walk(trajectory.agent, trajectory.id)
            return
        files = self._resources.files(str(trajectory.notes.get("instance_id")), trajectory.notes)
        for path in sorted(files, key=lambda path: _digest(str(self._seed), trajectory.id, path)):
            if (text := files.get(path, "")).strip():  # a repository lists binary files too, and they have no text
                piece = Piece(id=path, title=path, text=text, kind="distractor", filled=True)
                yield piece, piece_cost(piece, self._tokenizer)


def stock_trajectory(stock: Stock, trajectory: Trajectory, tokenizer: Tokenizer) -> None:
    """Take what a run can lend to others: a search run its pages; every run its list of evidence."""
    stock.note_evidence(trajectory)
    if trajectory.agent == "search":
        for piece in (*trajectory.evidence, *trajectory.distractors):
            stock.add("search", replace(piece, kind="distractor"), tokenizer)


def stock_tables(stock: Stock, resources: Resources, tokenizer: Tokenizer) -> None:
    """Take every table with rows of every database; one that cannot be read whole is left out."""
    for name, path in sorted(resources.databases.items()):
        try:
            with open_readonly(path) as database:
                for table in sorted(database.table_names().values()):
                    contents = database.table(table)
                    if contents.rows:
                        text = table_text(contents, resources.table_format)
                        piece = Piece(id=f"{name}.{table}", title=f"Table {table}", text=text, kind="distractor")
                        stock.add("sql", piece, tokenizer)
        except QueryError:
            continue


def piece_cost(piece: Piece, tokenizer: Tokenizer) -> int:
    """Tokens a piece adds to a document under a number of one digit; each further digit is a token more."""
    return tokenizer.count(f"\n\n[Document 1] {piece.title}\n{piece.text}")


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()
