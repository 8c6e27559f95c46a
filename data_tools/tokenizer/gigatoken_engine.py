"""gigatoken, an optional engine about fifteen times as fast as tiktoken, used only for text where the two agree.

gigatoken 0.10.0 knows the letters of Unicode 17, tiktoken 0.14.0 those of Unicode 16: chunks that may contain a new
letter are encoded by tiktoken. Samples of the other chunks are compared with tiktoken while encoding.
"""

import re
import sys
import tempfile
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from acc_megatron.data_tools.tokenizer.qwen_bpe import CHUNK_CHARACTERS, PATTERN, Tokenizer
from acc_megatron.errors import EnvironmentProblem
from acc_megatron.optional import missing_package

T = TypeVar("T")
ENGINES = ("auto", "tiktoken", "gigatoken")
SAMPLE_CHARACTERS = 8_000  # compared, from the middle of a chunk
CHARACTERS_BETWEEN_SAMPLES = 2_000_000
# the letters that are new in Unicode 17 and, to keep it short, all characters above 16 bits except emoji
_UNSAFE_UNITS = ((0x088F, 0x088F), (0x0C5C, 0x0C5C), (0x0CDC, 0x0CDC), (0xA7CE, 0xA7F1))
_UNSAFE_HIGH = ((0x10000, 0x1EFFF), (0x20000, 0x10FFFF))
_SURROGATES = (0xD800, 0xDFFF)  # the halves of characters above 16 bits
UNSAFE = re.compile("".join(["[", *(f"{chr(a)}-{chr(b)}" for a, b in (*_UNSAFE_UNITS, *_UNSAFE_HIGH)), "]"]))
LONGEST_CHUNK_CHARACTERS = 4 * CHUNK_CHARACTERS  # tiktoken may refuse a longer chunk
CACHE_BYTES = 128 << 20
CHARACTERS_BETWEEN_CHECKS = 16 << 20


def _maybe_unsafe() -> np.ndarray:
    """Whether a character with this UTF-16 unit may be unsafe, bool `[65536]`."""
    table = np.zeros(1 << 16, bool)
    for first, last in (*_UNSAFE_UNITS, _SURROGATES):
        table[first : last + 1] = True
    return table


_MAYBE_UNSAFE = _maybe_unsafe()


def is_unsafe(text: str) -> bool:
    """Whether a text has an unsafe character; the table rules it out in a third of the time of the pattern."""
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")
    return bool(_MAYBE_UNSAFE.take(units).any()) and UNSAFE.search(text) is not None


class EngineDisagrees(Exception):
    """The fast engine gave different ids than tiktoken."""


class BoundedGigatoken:
    """gigatoken, loaded again when the process has grown by CACHE_BYTES: its cache of words grows without limit."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._limit_bytes = 0
        self._load()

    def encode(self, chunk: str) -> np.ndarray:
        """Ids `[tokens]` uint32."""
        self._characters_until_check -= len(chunk)
        if self._characters_until_check < 0:
            self._check_memory()
        return self._engine.encode(chunk)

    def _check_memory(self) -> None:
        self._characters_until_check = CHARACTERS_BETWEEN_CHECKS
        resident_bytes = _resident_bytes()
        self._limit_bytes = self._limit_bytes or resident_bytes + CACHE_BYTES
        if resident_bytes > self._limit_bytes:
            del self._engine  # first, so that its memory can be used again
            self._load()

    def _load(self) -> None:
        if self._tokenizer.ranks_file:
            self._engine = _read(self._tokenizer.ranks_file)
        else:
            with tempfile.NamedTemporaryFile(suffix=".tiktoken") as file:
                ranks = self._tokenizer.ranks.items()
                file.writelines(b"%s %d\n" % (b2a_base64(token, newline=False), rank) for token, rank in ranks)
                file.flush()
                self._engine = _read(Path(file.name))
        self._characters_until_check = CHARACTERS_BETWEEN_CHECKS
        self._limit_bytes = 0  # set by the first check, which imports psutil


@dataclass(frozen=True)
class FastTokenizer(Tokenizer):
    """The same vocabulary, with gigatoken for text where both engines agree and tiktoken for the rest.

    `encode` raises EngineDisagrees when gigatoken and tiktoken give different ids for a sample.
    """

    _state: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def _engine(self) -> BoundedGigatoken:
        return BoundedGigatoken(self)

    def sample_next(self) -> None:
        """Compare a sample of the next chunk, whenever the last sample was taken."""
        self._state["until_sample"] = 0

    def _encode_chunk(self, chunk: str) -> np.ndarray:
        if len(chunk) > LONGEST_CHUNK_CHARACTERS or (not chunk.isascii() and is_unsafe(chunk)):
            return super()._encode_chunk(chunk)
        until_sample = self._state.get("until_sample", 0) - len(chunk)
        if until_sample < 0:
            until_sample = CHARACTERS_BETWEEN_SAMPLES
            self._check_sample(chunk)
        self._state["until_sample"] = until_sample
        return self._engine.encode(chunk)

    def _check_sample(self, chunk: str) -> None:
        middle = max(0, (len(chunk) - SAMPLE_CHARACTERS) // 2)
        sample = chunk[middle : middle + SAMPLE_CHARACTERS]
        if not np.array_equal(self._engine.encode(sample), super()._encode_chunk(sample)):
            raise EngineDisagrees


def with_engine(tokenizer: Tokenizer, engine: str) -> Tokenizer:
    """The tokenizer with another engine; `auto` is gigatoken if it is installed and supports the pattern.

    Otherwise `auto` is tiktoken. Raises EnvironmentProblem for `gigatoken` when it cannot be used.
    """
    if engine == "tiktoken":
        return tokenizer
    problem = _problem(tokenizer)
    if problem is None:
        return FastTokenizer(**{each.name: getattr(tokenizer, each.name) for each in fields(tokenizer) if each.init})
    if engine == "gigatoken":
        raise EnvironmentProblem(problem)
    return tokenizer


def with_fallback(work: Callable[[Tokenizer], T], tokenizer: Tokenizer, plain: Tokenizer, where: str) -> T:
    """The result of `work` with a tokenizer, or with the plain one if its engine disagrees with tiktoken.

    The fast engine is compared on a sample at the start of every `work`, so that it does not depend on the worker.
    """
    if isinstance(tokenizer, FastTokenizer):
        tokenizer.sample_next()
    try:
        return work(tokenizer)
    except EngineDisagrees:
        print(f"{where}: gigatoken disagrees with tiktoken on a sample: using tiktoken there", file=sys.stderr)
        return work(plain)


def _problem(tokenizer: Tokenizer) -> str | None:
    if tokenizer.pattern != PATTERN:
        return f"gigatoken does not support the split pattern of {tokenizer.name}: use --engine tiktoken"
    try:
        import gigatoken  # noqa: F401
    except ModuleNotFoundError:
        return str(missing_package("gigatoken", "--engine gigatoken", otherwise="use --engine tiktoken"))
    return None


def _read(ranks_file: Path) -> Any:
    import gigatoken

    # without special tokens it cannot produce a control id
    return gigatoken.Tokenizer.from_tiktoken(ranks_file, pretokenizer="qwen2", special_tokens={})


def _resident_bytes() -> int:
    import psutil

    return psutil.Process().memory_info().rss
