"""The fast engine gives the reference's ids, or is not used."""

import random
import sys
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest

from acc_megatron.data_tools import fast_encoder, shards
from acc_megatron.data_tools.convert import ConvertSettings, convert
from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.data_tools.fast_encoder import EngineDisagrees, FastTokenizer, with_engine
from acc_megatron.data_tools.tokenizer import Tokenizer
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


def test_an_engine_that_disagrees_on_a_sample_is_left_out_of_the_shard(
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
        liar.check_sample("some text")  # type: ignore[attr-defined]
    real = shards.tokenizer_on
    monkeypatch.setattr(shards, "tokenizer_on", lambda name, engine: liar if engine == "auto" else real(name, engine))
    convert([source], tmp_path / "out", ConvertSettings(), engine="auto")
    assert "auto disagrees with tiktoken in 00000" in capsys.readouterr().err
    expected, out = open_dataset(tmp_path / "reference"), open_dataset(tmp_path / "out")
    assert out.fingerprint == expected.fingerprint and len(out) == 64


def test_an_engine_that_cannot_be_had_is_refused_by_name(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    assert with_engine(tokenizer, "auto") is tokenizer
    with pytest.raises(EnvironmentProblem, match=r"pip install acc-megatron\[fast\]"):
        with_engine(tokenizer, "gigatoken")
    with pytest.raises(DataError, match="unknown engine 'fastest'; known: auto, tiktoken, gigatoken"):
        convert([], Path("out"), ConvertSettings(), engine="fastest")
    assert fast_encoder.ENGINES == ("auto", "tiktoken", "gigatoken")
