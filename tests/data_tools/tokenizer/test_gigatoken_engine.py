"""The fast engine gives the same ids as tiktoken, or is not used."""

import random
import sys
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest

from acc_megatron.data_tools.convert import shards
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.tokenizer import gigatoken_engine as fast_encoder
from acc_megatron.data_tools.tokenizer.gigatoken_engine import EngineDisagrees, FastTokenizer, with_engine
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError, EnvironmentProblem


@pytest.fixture(scope="module")
def fast(tokenizer: Tokenizer) -> FastTokenizer:
    pytest.importorskip("gigatoken")
    found = with_engine(tokenizer, "auto")
    assert isinstance(found, FastTokenizer)
    return found


def test_both_engines_give_the_same_ids(fast: FastTokenizer, tokenizer: Tokenizer) -> None:
    generator = random.Random(3)
    for number in range(4_000):
        top = (128, 0x300, 0x10000, 0x110000)[number % 4]
        points = (generator.choice((generator.randrange(128), generator.randrange(top))) for _ in range(60))
        text = "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
        assert fast.encode(text).tolist() == tokenizer.encode(text).tolist(), ascii(text)
    for name in tokenizer.control:
        assert fast.encode(f"a{name}b").max() < tokenizer.first_control_id
        assert fast.decode(fast.encode(name)) == normalize("NFC", name)


def test_a_shard_with_a_sample_that_differs_is_made_with_tiktoken(
    tmp_path: Path,
    triple_rows: list[dict[str, Any]],
    write_rows: Any,
    fast: FastTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write_rows(tmp_path / "triples.jsonl", triple_rows)
    convert([source], tmp_path / "reference", ConvertSettings(), engine="tiktoken")

    class Liar:
        def encode(self, text: str) -> np.ndarray:
            return np.zeros(len(text), np.uint32)

    liar = with_engine(fast, "gigatoken")
    liar.__dict__["_engine"] = Liar()
    with pytest.raises(EngineDisagrees):
        liar.encode("some text")
    real = shards.tokenizer_on
    monkeypatch.setattr(shards, "tokenizer_on", lambda name, engine: liar if engine == "auto" else real(name, engine))
    convert([source], tmp_path / "out", ConvertSettings(), engine="auto")
    assert "shard 00000: gigatoken disagrees with tiktoken" in capsys.readouterr().err
    expected, out = open_dataset(tmp_path / "reference"), open_dataset(tmp_path / "out")
    assert out.fingerprint == expected.fingerprint and len(out) == 64


def test_samples_are_compared_at_the_start_and_at_regular_distances(
    tokenizer: Tokenizer, fast: FastTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_encoder, "CHARACTERS_BETWEEN_SAMPLES", 100)
    fresh, taken = with_engine(tokenizer, "gigatoken"), list[str]()
    assert isinstance(fresh, FastTokenizer)
    monkeypatch.setattr(FastTokenizer, "_check_sample", lambda self, chunk: taken.append(chunk))
    for number in range(10):
        fresh.encode(f"{number:040}")
    assert [int(text) for text in taken] == [0, 3, 6, 9]
    fresh.sample_next()
    fresh.encode("a new shard")
    assert taken[-1] == "a new shard"
    fresh.encode("\U00032476.s")
    assert taken[-1] == "a new shard", "text that tiktoken encodes is never a sample"


def test_every_character_given_to_gigatoken_is_split_as_tiktoken_splits_it(
    fast: FastTokenizer, tokenizer: Tokenizer
) -> None:
    """The engines know different versions of Unicode; a letter that only one knows would change the split."""
    points = [*range(0xD800), *range(0xE000, 0x10000), *range(0x1F000, 0x20000)]
    safe = [chr(point) for point in points if not fast_encoder.UNSAFE.match(chr(point))]
    assert len(safe) > 67_000
    for start in range(0, len(safe), 512):
        text = "".join(f"{c}.s\r{c}'s a{c}b  {c}1\r" for c in safe[start : start + 512])
        assert np.array_equal(fast._engine.encode(text), Tokenizer._encode_chunk(fast, text)), hex(ord(safe[start]))
    for letter in ("\u088f", "\ua7d4", "\U00032476", "\U00018d84"):
        text = f"{letter}.s"
        assert not np.array_equal(fast._engine.encode(text), tokenizer.encode(text)), "the reason to keep them apart"
        assert np.array_equal(fast.encode(text), tokenizer.encode(text))


def test_every_unsafe_character_is_found() -> None:
    points = [*range(1, 0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x110000, 997)]
    found = [fast_encoder.is_unsafe(f"é{chr(point)}a") for point in points]
    assert found == [fast_encoder.UNSAFE.match(chr(point)) is not None for point in points]
    assert found[0x0C5C - 1] and not found[0x2019 - 1] and not found[points.index(0x1F600)]


def test_gigatoken_is_loaded_again_when_it_has_grown_too_large(
    fast: FastTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fast.encode("eleven characters").tolist()
    sizes = [100, 100 + fast_encoder.CACHE_BYTES, 101 + fast_encoder.CACHE_BYTES, 50, 50]
    monkeypatch.setattr(fast_encoder, "_resident_bytes", lambda: sizes.pop(0))
    monkeypatch.setattr(fast_encoder, "CHARACTERS_BETWEEN_CHECKS", 10)
    engine, seen = fast_encoder.BoundedGigatoken(fast), []
    for _ in range(5):
        assert engine.encode("eleven characters").tolist() == ids
        seen.append(engine._engine)
    assert seen[0] is seen[1] is not seen[2] is seen[3] is seen[4], "too large at the third check only"


def test_work_is_repeated_with_tiktoken_when_a_sample_differs(
    tokenizer: Tokenizer, fast: FastTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    used: list[Tokenizer] = []

    def work(given: Tokenizer) -> int:
        used.append(given)
        if isinstance(given, FastTokenizer):
            raise EngineDisagrees
        return given.count("hello world")

    assert fast_encoder.with_fallback(work, fast, tokenizer, "shard 3") == 2
    assert [type(given) for given in used] == [FastTokenizer, Tokenizer]
    assert "shard 3: gigatoken disagrees with tiktoken" in capsys.readouterr().err
    assert fast_encoder.with_fallback(lambda given: given.count("hello world"), fast, tokenizer, "shard 3") == 2


def test_an_engine_that_is_not_available_is_refused_by_name(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    assert with_engine(tokenizer, "auto") is tokenizer
    with pytest.raises(EnvironmentProblem, match=r"pip install gigatoken==0\.10\.0"):
        with_engine(tokenizer, "gigatoken")
    with pytest.raises(DataError, match="unknown engine 'fastest'; the engines are auto, tiktoken, gigatoken"):
        convert([], Path("out"), ConvertSettings(), engine="fastest")
    assert fast_encoder.ENGINES == ("auto", "tiktoken", "gigatoken")
