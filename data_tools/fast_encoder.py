"""gigatoken, an optional engine some fifteen times as fast as tiktoken, kept to text where the two agree.

gigatoken 0.10.0 knows the letters of Unicode 17, tiktoken 0.14.0 those of Unicode 16: chunks that may hold one of
the new ones stay with tiktoken. The tokenizer holds samples of what it encodes against the reference by itself.
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

from acc_megatron.data_tools.tokenizer import CHUNK_CHARACTERS, PATTERN, Tokenizer
from acc_megatron.errors import EnvironmentProblem

T = TypeVar("T")
ENGINES = ("auto", "tiktoken", "gigatoken")
SAMPLE_CHARACTERS = 8_000  # from the middle of one chunk in every
CHARACTERS_BETWEEN_SAMPLES = 2_000_000
# all letters that are new in Unicode 17, and for brevity all characters beyond 16 bits but the emoji's
UNSAFE = re.compile("[\u088f\u0c5c\u0cdc\ua7ce-\ua7f1\U00010000-\U0001efff\U00020000-\U0010ffff]")
LONGEST_CHUNK_CHARACTERS = 4 * CHUNK_CHARACTERS  # what cannot be cut, tiktoken may refuse
CACHE_BYTES = 128 << 20
CHARACTERS_BETWEEN_LOOKS = 16 << 20


class EngineDisagrees(Exception):
    """The fast engine gave other ids than the reference."""


class BoundedGigatoken:
    """gigatoken, loaded anew when this process has grown by CACHE_BYTES: its cache of words never forgets."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._limit_bytes = 0
        self._load()

    def encode(self, chunk: str) -> np.ndarray:
        """Ids `[tokens]` uint32."""
        self._until_look -= len(chunk)
        if self._until_look < 0:
            self._look()
        return self._engine.encode(chunk)

    def _look(self) -> None:
        self._until_look = CHARACTERS_BETWEEN_LOOKS
        resident_bytes = _resident_bytes()
        self._limit_bytes = self._limit_bytes or resident_bytes + CACHE_BYTES
        if resident_bytes > self._limit_bytes:
            del self._engine  # before the next one takes its memory
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
        self._until_look = CHARACTERS_BETWEEN_LOOKS
        self._limit_bytes = 0  # not known before the first look, which costs an import


@dataclass(frozen=True)
class FastTokenizer(Tokenizer):
    """The same vocabulary; what is safe for gigatoken is encoded by it, everything else by tiktoken.

    `encode` raises EngineDisagrees when gigatoken gives a sample other ids than tiktoken.
    """

    _state: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def _engine(self) -> BoundedGigatoken:
        return BoundedGigatoken(self)

    def sample_next(self) -> None:
        """Take the next chunk's middle as a sample, however little came since the last."""
        self._state["until_sample"] = 0

    def _encode_chunk(self, chunk: str) -> np.ndarray:
        if len(chunk) > LONGEST_CHUNK_CHARACTERS or (not chunk.isascii() and UNSAFE.search(chunk)):
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
    """The tokenizer on an engine; `auto` is gigatoken where it is installed and knows the pattern, else tiktoken.

    Raises EnvironmentProblem when gigatoken is asked for by name and cannot be had.
    """
    if engine == "tiktoken":
        return tokenizer
    problem = _problem(tokenizer)
    if problem is None:
        return FastTokenizer(**{each.name: getattr(tokenizer, each.name) for each in fields(tokenizer) if each.init})
    if engine == "gigatoken":
        raise EnvironmentProblem(problem)
    return tokenizer


def on_fast_engine(work: Callable[[Tokenizer], T], tokenizer: Tokenizer) -> T:
    """What `work` gives with the fastest engine there is, done again with the reference if the engine disagrees."""
    try:
        return work(with_engine(tokenizer, "auto"))
    except EngineDisagrees:
        print("gigatoken disagrees with tiktoken on a sample: starting again without it", file=sys.stderr)
        return work(tokenizer)


def _problem(tokenizer: Tokenizer) -> str | None:
    if tokenizer.pattern != PATTERN:
        return f"gigatoken splits text by Qwen's pattern, not by that of {tokenizer.name}: use --engine tiktoken"
    try:
        import gigatoken  # noqa: F401
    except ImportError:
        return "gigatoken is not installed: run 'pip install acc-megatron[fast]', or use --engine tiktoken"
    return None


def _read(ranks_file: Path) -> Any:
    import gigatoken

    # no special tokens: like the reference it cannot make a control id
    return gigatoken.Tokenizer.from_tiktoken(ranks_file, pretokenizer="qwen2", special_tokens={})


def _resident_bytes() -> int:
    import psutil

    return psutil.Process().memory_info().rss
