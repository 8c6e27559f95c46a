"""gigatoken, an optional engine some fifteen times as fast as tiktoken, kept to text where the two agree.

On runs that hold private or unassigned characters gigatoken 0.10.0 cuts some words elsewhere, so only ASCII
chunks go to it; and whoever uses it checks a sample against the reference with `check_sample`.
"""

import tempfile
from binascii import b2a_base64
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from acc_megatron.data_tools.tokenizer import PATTERN, Tokenizer
from acc_megatron.errors import EnvironmentProblem

ENGINES = ("auto", "tiktoken", "gigatoken")
SAMPLE_CHARACTERS = 16_000


class EngineDisagrees(Exception):
    """The fast engine gave other ids than the reference."""


@dataclass(frozen=True)
class FastTokenizer(Tokenizer):
    """The same vocabulary; ASCII chunks are encoded by gigatoken, everything else by tiktoken."""

    @cached_property
    def _engine(self) -> Any:
        import gigatoken

        with tempfile.NamedTemporaryFile(suffix=".tiktoken") as file:
            lines = (b"%s %d\n" % (b2a_base64(token, newline=False), rank) for token, rank in self.ranks.items())
            file.write(b"".join(lines))
            file.flush()
            # no special tokens: like the reference it cannot make a control id
            return gigatoken.Tokenizer.from_tiktoken(file.name, pretokenizer="qwen2", special_tokens={})

    def _encode_chunk(self, chunk: str) -> np.ndarray:
        return self._engine.encode(chunk) if chunk.isascii() else super()._encode_chunk(chunk)

    def check_sample(self, text: str) -> None:
        """Raise EngineDisagrees unless both engines give the middle of `text` the same ids."""
        middle = max(0, (len(text) - SAMPLE_CHARACTERS) // 2)
        sample = text[middle : middle + SAMPLE_CHARACTERS].encode("ascii", "ignore").decode()
        if not np.array_equal(self._encode_chunk(sample), super()._encode_chunk(sample)):
            raise EngineDisagrees


def with_engine(tokenizer: Tokenizer, engine: str) -> Tokenizer:
    """The tokenizer on an engine; `auto` is gigatoken where it is installed and knows the pattern, else tiktoken.

    Raises EnvironmentProblem when gigatoken is asked for by name and cannot be had.
    """
    if engine == "tiktoken":
        return tokenizer
    problem = _problem(tokenizer)
    if problem is None:
        return FastTokenizer(**{field.name: getattr(tokenizer, field.name) for field in fields(tokenizer)})
    if engine == "gigatoken":
        raise EnvironmentProblem(problem)
    return tokenizer


def _problem(tokenizer: Tokenizer) -> str | None:
    if tokenizer.pattern != PATTERN:
        return f"gigatoken splits text by Qwen's pattern, not by that of {tokenizer.name}: use --engine tiktoken"
    try:
        import gigatoken  # noqa: F401
    except ImportError:
        return "gigatoken is not installed: run 'pip install acc-megatron[fast]', or use --engine tiktoken"
    return None
