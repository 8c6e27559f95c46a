"""A stock of pieces on disk that contexts are filled from, in one pool for each agent kind.

Pieces are in the order of SHA-256 of (seed, pool, id), and each trajectory walks through a pool by a stride of its own.
"""

import hashlib
import math
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from acc_megatron.data_tools.schema import Piece
from acc_megatron.data_tools.sources.page_url import page_key
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer

STOCK_BYTES = 4 << 30


def piece_key(id_: str) -> str:
    """The key that all spellings of one URL share; other ids are compared without case."""
    return page_key(id_).casefold()


def piece_cost(piece: Piece, tokenizer: Tokenizer) -> int:
    """Tokens that a piece adds to a document under a number of one digit; each further digit adds a token."""
    return tokenizer.count(f"\n\n[Document 1] {piece.title}\n{piece.text}")


def digest(*parts: str) -> bytes:
    """SHA-256 of the parts, separated by NUL."""
    return hashlib.sha256("\0".join(parts).encode()).digest()


class Stock:
    """Pieces on disk, one for each id; above `max_bytes` the last pieces in the seeded order are left out."""

    def __init__(self, path: Path, seed: int, max_bytes: int = STOCK_BYTES) -> None:
        self._seed, self._max_bytes, self._num_bytes = seed, max_bytes, 0
        self._last_key: bytes | None = None  # this key and later ones are left out
        self._sizes: dict[str, int] = {}
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN;"
            "CREATE TABLE stock (key BLOB PRIMARY KEY, pool TEXT, bytes INT, tokens INT, id TEXT, title TEXT,"
            " text TEXT) WITHOUT ROWID;"
            "CREATE TABLE evidence (question BLOB, key TEXT, PRIMARY KEY (question, key)) WITHOUT ROWID;"
            "CREATE TABLE place (pool TEXT, number INT, key BLOB, PRIMARY KEY (pool, number)) WITHOUT ROWID;"
        )

    @classmethod
    def opened(cls, path: Path, seed: int) -> "Stock":
        """A sealed stock, for reading only."""
        stock = cls.__new__(cls)
        stock._seed = seed
        stock._database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        stock._count()
        return stock

    def add(self, pool: str, piece: Piece, tokens: int) -> None:
        """Add a piece of that many tokens to a pool unless the pool has a piece of the same id."""
        key = digest(str(self._seed), pool, piece_key(piece.id))
        known = self._database.execute("SELECT 1 FROM stock WHERE key = ?", (key,)).fetchone()
        if known or (self._last_key is not None and key >= self._last_key):
            return
        size = len(piece.text.encode()) + len(piece.title.encode())
        row = (key, pool, size, tokens, piece.id, piece.title, piece.text)
        self._database.execute("INSERT INTO stock VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._num_bytes += size
        if self._num_bytes > self._max_bytes:
            self._shrink()

    def note_evidence(self, question: str, ids: Iterable[str]) -> None:
        """Remember the ids of evidence of a question; several runs can answer the same question."""
        rows = [(digest(question), piece_key(id_)) for id_ in ids]
        self._database.executemany("INSERT OR IGNORE INTO evidence VALUES (?, ?)", rows)

    def seal(self) -> None:
        """Number the pieces of each pool; nothing can be added afterwards."""
        self._database.execute(
            "INSERT INTO place SELECT pool, row_number() OVER (PARTITION BY pool ORDER BY key) - 1, key FROM stock"
        )
        self._database.execute("COMMIT")
        self._count()

    def _count(self) -> None:
        self._sizes = dict(self._database.execute("SELECT pool, count(*) FROM place GROUP BY pool"))

    def evidence_keys(self, question: str) -> set[str]:
        """The keys of everything that is evidence of a question in any run."""
        rows = self._database.execute("SELECT key FROM evidence WHERE question = ?", (digest(question),))
        return {key for (key,) in rows}

    def walk(self, pool: str, name: str) -> Iterator[tuple[Piece, int]]:
        """Every piece of a pool once, with its tokens, in an order that depends on `name`."""
        size = self._sizes.get(pool, 0)
        place = digest(str(self._seed), "walk", name)
        start, stride = int.from_bytes(place[:8]), int.from_bytes(place[8:16]) % max(size, 1)
        while size and math.gcd(stride, size) != 1:
            stride += 1
        for step in range(size):
            row = self._database.execute(
                "SELECT id, title, text, tokens FROM place JOIN stock USING (key) WHERE place.pool = ? AND number = ?",
                (pool, (start + step * stride) % size),
            ).fetchone()
            yield Piece(id=row[0], title=row[1], text=row[2], kind="distractor", filled=True), row[3]

    def close(self) -> None:
        """Close the database file."""
        self._database.close()

    def _shrink(self) -> None:
        """Remove the last tenth in key order; later pieces with such keys are not added."""
        rows = self._database.execute("SELECT key, bytes FROM stock ORDER BY key DESC")
        for key, size in rows:
            self._last_key = key
            self._num_bytes -= size
            if self._num_bytes <= 0.9 * self._max_bytes:
                break
        self._database.execute("DELETE FROM stock WHERE key >= ?", (self._last_key,))
