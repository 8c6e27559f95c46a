"""The vocabulary is Qwen3's, decoding returns the text, chunks change nothing, and no text is a control token."""

import hashlib
import importlib.util
import json
import random
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
import tiktoken

from acc_megatron.data_tools.tokenizer import qwen_bpe as tokenizer_module
from acc_megatron.data_tools.tokenizer.qwen_bpe import PATTERN, Tokenizer, load_tokenizer
from acc_megatron.errors import DataError, EnvironmentProblem

# characters where a regular expression, a newline rule or NFC could split a text in two ways
EDGES = [
    *("\n", "\n", "\n", " ", " ", "  ", "\r", "\r\n", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u2028", "\u3000"),
    *("a", "b", "1", ".", "!", "(", "'s", "e", "\u0301", "é", "你", "ᄒ", "ᅡ", "🙂", "\u200b", "\ufeff", "\x00"),
]


def edge_text(generator: random.Random, most_characters: int) -> str:
    return "".join(generator.choice(EDGES) for _ in range(generator.randint(0, most_characters)))


def test_the_vocabulary_is_qwens_by_hash_size_and_ids(tokenizer: Tokenizer) -> None:
    spec = importlib.util.find_spec("dashscope")
    assert spec and spec.origin
    data = (Path(spec.origin).parent / "resources" / "qwen.tiktoken").read_bytes()
    assert hashlib.sha256(data).hexdigest() == "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
    assert tokenizer.sha256 == hashlib.sha256(data).hexdigest()
    assert (len(tokenizer.ranks), tokenizer.first_control_id, tokenizer.vocab_size) == (151_643, 151_643, 151_669)
    ids = {
        "<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<tool_call>": 151657,
        "</tool_call>": 151658, "<tool_response>": 151665, "</tool_response>": 151666, "<think>": 151667,
        "</think>": 151668,
    }  # fmt: skip
    assert {name: tokenizer.control[name] for name in ids} == ids
    assert tokenizer.encode("hello world").tolist() == [14990, 1879]
    assert tokenizer.count("hello world") == 2


def test_decoding_gives_back_the_nfc_form(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("e\u0301")) == "\u00e9"
    generator = random.Random(1)
    for _ in range(500):
        points = (generator.randrange(0x110000) for _ in range(generator.randint(0, 30)))
        text = "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000) + edge_text(generator, 30)
        assert tokenizer.decode(tokenizer.encode(text)) == normalize("NFC", text)


def test_decoding_names_control_and_unknown_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([151644, 14990, 151668, 151800]) == "<|im_start|>hello</think><|id:151800|>"


def test_encoding_in_chunks_equals_encoding_at_once(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiktoken.Encoding("whole", pat_str=PATTERN, mergeable_ranks=tokenizer.ranks, special_tokens={})
    monkeypatch.setattr(tokenizer_module, "CHUNK_CHARACTERS", 5)
    generator, num_cut = random.Random(2), 0
    for _ in range(15_000):
        text = normalize("NFC", edge_text(generator, 40))
        num_cut += len(list(tokenizer_module._chunks(text))) > 1
        assert tokenizer.encode(text).tolist() == whole.encode_ordinary(text), text
    assert num_cut > 3_000, "the texts were to be cut often"


def test_long_text_is_split_at_the_real_chunk_size(tokenizer: Tokenizer) -> None:
    whole = tiktoken.Encoding("whole", pat_str=PATTERN, mergeable_ranks=tokenizer.ranks, special_tokens={})
    generator = random.Random(3)
    text = normalize("NFC", "".join(edge_text(generator, 60) for _ in range(8_000)))
    assert len(list(tokenizer_module._chunks(text))) > 2
    assert tokenizer.encode(text).tolist() == whole.encode_ordinary(text)


def test_no_control_string_in_any_context_is_a_control_id(tokenizer: Tokenizer) -> None:
    names = list(tokenizer.control)
    nested = [a[:cut] + b + a[cut:] for a in names for b in names[:3] for cut in (1, 3, len(a) - 1)]
    generator = random.Random(4)
    fuzzed = [
        edge_text(generator, 12) + generator.choice(names) + edge_text(generator, 12) + generator.choice(names)
        for _ in range(1_000)
    ]
    assert len(names) == 26
    for text in [*names, *nested, *fuzzed]:
        ids = tokenizer.encode(text)
        assert ids.max() < 151_643, text
        assert tokenizer.decode(ids) == normalize("NFC", text)


def test_text_that_has_no_utf8_form_is_refused_with_its_position(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="surrogate at character 2"):
        tokenizer.encode("ab\ud800")
    # tiktoken's regular expression engine gives up on this; it must not end a conversion of other rows
    with pytest.raises(DataError, match="1500000 consecutive white space characters"):
        tokenizer.encode("a" + " " * 1_500_000 + "b")


def test_a_written_tokenizer_folder_is_read_back_unchanged(tokenizer: Tokenizer, tokenizer_folder: Path) -> None:
    again = load_tokenizer(str(tokenizer_folder))
    assert (again.ranks, again.control, again.pattern) == (tokenizer.ranks, tokenizer.control, tokenizer.pattern)
    text = "Straße 12,\n\n 你好 <think>"
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokenizer at"):
        load_tokenizer(str(tmp_path / "absent"))
    (tmp_path / "qwen.tiktoken").write_bytes(b"IQ== 0\n")
    with pytest.raises(DataError, match=r"not Qwen's vocabulary: sha256 .* expected b2b1b8df"):
        load_tokenizer(str(tmp_path / "qwen.tiktoken"))
    split = {"pretokenizers": [{"pattern": {"Regex": PATTERN}}]}
    five = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>")
    good: dict[str, Any] = {
        "model": {"vocab": {"a": 0, "b": 1}},
        "pre_tokenizer": split,
        "added_tokens": [{"content": name, "id": 2 + i} for i, name in enumerate(five)],
    }
    bad: dict[str, list[Any]] = {
        "byte-level": [
            b"{",
            b"[]",
            good | {"pre_tokenizer": None},
            good | {"model": {"vocab": {"\u2581a": 0}}},
            good | {"model": {"vocab": {}}},
        ],
        "no control token '</think>'": [good | {"added_tokens": good["added_tokens"][:-1]}],
        "has control ids from 2 among plain ids up to 2": [good | {"model": {"vocab": {"a": 0, "b": 2}}}],
    }
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(good))
    assert load_tokenizer(str(file)).encode("ab").tolist() == [0, 1]
    for message, contents in bad.items():
        for content in contents:
            file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
            with pytest.raises(DataError, match=message):
                load_tokenizer(str(file))


def test_the_error_for_a_missing_vocabulary_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"pip install --no-deps dashscope==2\.0\.2"):
        load_tokenizer()


@pytest.mark.slow
def test_a_huge_document_needs_neither_a_deep_stack_nor_much_memory(
    tokenizer: Tokenizer,
) -> None:
    """20 MB without a newline in chunks of bounded size, and words of several MB that cannot be split."""
    line = "the quick brown fox jumps over the lazy dog " * 450_000
    longest = max(map(len, tokenizer_module._chunks(line)))
    assert longest < 2 * tokenizer_module.CHUNK_CHARACTERS and "".join(tokenizer_module._chunks(line)) == line
    assert tokenizer.count(line[: 44 * 20_000]) == 9 * 20_000 + 1
    for word in ("a", "=", "7", "é", "你好"):
        text = word * (1_000_000 // len(word))
        assert tokenizer.decode(tokenizer.encode(text)) == text
