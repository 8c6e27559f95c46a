"""Qwen's byte-level BPE with tiktoken, with control tokens strictly separate from text.

`encode` knows no control tokens, so no text can become one. Control tokens exist only as the ids in `control`, which
code inserts.
"""

import binascii
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

import numpy as np
import tiktoken

from acc_megatron.errors import DataError
from acc_megatron.optional import missing_package

QWEN_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen3's control tokens in id order from 151643; transformers marks only the first 14 as special.
SPECIAL = [
    f"<|{name}|>"
    for name in (
        "endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start "
        "quad_end vision_start vision_end vision_pad image_pad video_pad"
    ).split()
]
ADDED = [
    "<tool_call>",
    "</tool_call>",
    *(f"<|{name}|>" for name in "fim_prefix fim_middle fim_suffix fim_pad repo_name file_sep".split()),
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]
CHUNK_CHARACTERS = 1 << 16
# places that no token of this pattern spans: between a newline and a non-space, and before a space between letters
_CUT = re.compile(r"(?<=\n)(?=\S)|(?<=[A-Za-z])(?= [A-Za-z])")


@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE vocabulary; ids of plain text are below `first_control_id`, control tokens are in `control`."""

    name: str
    sha256: str
    ranks: dict[bytes, int]
    pattern: str
    control: dict[str, int]
    ranks_file: Path | None = None  # the file of `ranks`, if other engines can read it

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        return tiktoken.Encoding(self.name, pat_str=self.pattern, mergeable_ranks=self.ranks, special_tokens={})

    @cached_property
    def first_control_id(self) -> int:
        """The smallest control id; every id of plain text is below it."""
        return min(self.control.values())

    @cached_property
    def control_ids(self) -> dict[str, np.ndarray]:
        """The id of each control token, int32 `[1]`."""
        return {name: np.array([token_id], np.int32) for name, token_id in self.control.items()}

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, control tokens included (the model's embedding may be larger)."""
        return max(self.control.values()) + 1

    @cached_property
    def control_strings(self) -> re.Pattern[str]:
        """A pattern that finds the text of any control token."""
        return re.compile("|".join(re.escape(token) for token in sorted(self.control, key=len, reverse=True)))

    def encode(self, text: str) -> np.ndarray:
        """Plain ids `[tokens]` uint32 of the NFC form of `text`; never a control id.

        Raises DataError for a lone surrogate, which has no UTF-8 form, and for too much consecutive white space.
        """
        if not text.isascii():
            text = _normalized(text)
        try:
            if 0 < len(text) <= CHUNK_CHARACTERS:
                return self._encode_chunk(text)
            chunks = [self._encode_chunk(chunk) for chunk in _chunks(text)]
        except ValueError as error:
            longest = max(map(len, re.findall(r"\s+", text)), default=0)
            raise DataError(f"the text has {longest} consecutive white space characters, too many: {error}") from None
        return np.concatenate(chunks) if chunks else np.empty(0, np.uint32)

    def _encode_chunk(self, chunk: str) -> np.ndarray:
        return self._encoding.encode_to_numpy(chunk, disallowed_special=())

    def count(self, text: str) -> int:
        """The number of ids that `encode` returns."""
        return len(self.encode(text))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of ids: control tokens as their names, unknown ids as `<|id:N|>`, invalid UTF-8 replaced."""
        known = self._bytes_of
        return b"".join(known.get(i) or b"<|id:%d|>" % i for i in map(int, ids)).decode("utf-8", errors="replace")

    @cached_property
    def byte_lengths(self) -> np.ndarray:
        """The number of UTF-8 bytes of every id, `[vocab_size]` uint16; of control tokens, that of their names."""
        lengths = np.zeros(self.vocab_size, np.uint16)
        lengths[list(self.ranks.values())] = [len(token) for token in self.ranks]
        lengths[list(self.control.values())] = [len(name.encode()) for name in self.control]
        return lengths

    @cached_property
    def _bytes_of(self) -> dict[int, bytes]:
        names = {token_id: name.encode() for name, token_id in self.control.items()}
        return {rank: token for token, rank in self.ranks.items()} | names


def _normalized(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"the text contains a lone surrogate at character {error.start}, which has no UTF-8 form"
        raise DataError(message) from None
    return normalize("NFC", text)


def _chunks(text: str) -> Iterator[str]:
    """Split long text where the ids of the chunks, joined, are the ids of the whole text; this bounds the memory."""
    start = 0
    while len(text) - start > CHUNK_CHARACTERS:
        cut = _CUT.search(text, start + CHUNK_CHARACTERS)
        if cut is None:
            break
        yield text[start : cut.end()]
        start = cut.end()
    if start < len(text):
        yield text[start:]


def load_tokenizer(name_or_path: str = "qwen3") -> Tokenizer:
    """The tokenizer of a name (`qwen3`), a `qwen.tiktoken` file, a `tokenizer.json` or its folder.

    Raises EnvironmentProblem when the vocabulary is not installed, DataError when a file is not a usable tokenizer.
    """
    if name_or_path == "qwen3":
        return _from_ranks(_installed_qwen_ranks())
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise DataError(f"no tokenizer at {path}: give 'qwen3', a qwen.tiktoken file, or a folder with tokenizer.json")
    return _from_json(path) if path.suffix == ".json" else _from_ranks(path)


def _installed_qwen_ranks() -> Path:
    # only the data file is used: the tokenizer class of dashscope assigns other control ids
    spec = importlib.util.find_spec("dashscope")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "resources" / "qwen.tiktoken"
        if path.is_file():
            return path
    folder = "give --tokenizer a Hugging Face folder with tokenizer.json"
    raise missing_package("dashscope", "the Qwen vocabulary", otherwise=folder)


def _from_ranks(path: Path) -> Tokenizer:
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != QWEN_SHA256:
        raise DataError(f"{path} is not Qwen's vocabulary: sha256 {sha256}, expected {QWEN_SHA256}")
    fields = data.split()  # alternately a token in base64 and its rank
    ranks = dict(zip(map(binascii.a2b_base64, fields[::2]), map(int, fields[1::2]), strict=True))
    control = {token: len(ranks) + i for i, token in enumerate(SPECIAL + ADDED)}
    return Tokenizer(name="qwen3", sha256=sha256, ranks=ranks, pattern=PATTERN, control=control, ranks_file=path)


def _from_json(path: Path) -> Tokenizer:
    """Ranks from a byte-level BPE `tokenizer.json`; in such a file a token's id is its merge rank."""
    data = path.read_bytes()
    try:
        spec = json.loads(data)
        vocab, added = spec["model"]["vocab"], spec["added_tokens"]
        pattern = spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
        control = {token["content"]: int(token["id"]) for token in added}
        byte_of = {character: byte for byte, character in byte_alphabet().items()}
        ranks = {
            bytes(byte_of[character] for character in token): int(rank)
            for token, rank in vocab.items()
            if token not in control
        }
        largest = max(ranks.values())
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path} is not a byte-level BPE tokenizer.json like Qwen's: {error!r}") from None
    for needed in ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>"):
        if needed not in control:
            raise DataError(f"{path} has no control token {needed!r}: give the tokenizer of a Qwen3 model")
    if largest >= min(control.values()):
        raise DataError(f"{path} has control ids from {min(control.values())} among plain ids up to {largest}")
    digest = hashlib.sha256(data).hexdigest()
    return Tokenizer(name=path.parent.name, sha256=digest, ranks=ranks, pattern=pattern, control=control)


def byte_alphabet() -> dict[int, str]:
    """The printable character that GPT-2's byte-level BPE, and tokenizer.json files, use for each byte."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in keep]
    return {byte: chr(byte) for byte in keep} | {byte: chr(256 + i) for i, byte in enumerate(rest)}
