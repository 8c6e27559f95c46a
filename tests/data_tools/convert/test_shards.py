"""A shard knows where each piece of a document is, with any tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
from support.small_tokenizer import write_small_tokenizer

from acc_megatron.data_tools.convert import shards as shards_module
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.render import INSTRUCTION
from acc_megatron.data_tools.tokenizer.qwen_bpe import PATTERN, Tokenizer, load_tokenizer

Writer = Callable[[Path, list[Any]], Path]
Rows = list[dict[str, Any]]


def test_the_sample_table_locates_each_piece(dataset: Path, triple_rows: Rows, tokenizer: Tokenizer) -> None:
    opened = open_dataset(dataset)
    for number in range(0, 64, 7):
        ids, _ = opened.document(number)
        pieces = opened.samples["pieces"][number].as_py()
        context = triple_rows[number]["context"]
        assert [(piece["kind"], piece["title"]) for piece in pieces] == [(p["kind"], p["title"]) for p in context]
        for place, (piece, source) in enumerate(zip(pieces, context, strict=True), start=1):
            span = ids[piece["first_token"] : piece["first_token"] + piece["tokens"]]
            expected = normalize("NFC", f"[Document {place}] {source['title']}\n{source['text']}")
            assert tokenizer.decode(span).strip("\n") == expected.strip("\n")


def test_pieces_are_located_where_the_instruction_is_part_of_a_longer_token(
    tmp_path: Path, write_rows: Writer, triple_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = f"{INSTRUCTION}\n\n[Document "
    joined = write_small_tokenizer(tmp_path / "joined", [opening], rf"Please reason[^\n]*\n\n\[Document |{PATTERN}")
    tokenizer = load_tokenizer(str(joined))
    assert len(tokenizer.encode(opening)) == 1
    monkeypatch.setattr(shards_module, "tokenizer_on", lambda *_: tokenizer)
    source = write_rows(tmp_path / "triples.jsonl", [json.dumps(triple_rows[0])])
    convert([source], tmp_path / "out", ConvertSettings(tokenizer=str(joined)))
    opened = open_dataset(tmp_path / "out")
    first, second = opened.samples["pieces"][0].as_py()[:2]
    start, end = second["first_token"], second["first_token"] + second["tokens"]
    assert first["first_token"] + first["tokens"] == start
    assert tokenizer.decode(opened.document(0)[0][start:end]).startswith(f"[Document 2] {second['title']}\n")


def test_the_positions_of_pieces_do_not_depend_on_the_block_size(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    ids, sizes = generator.integers(0, 151_643, 500), np.cumsum(generator.integers(0, 90, 30))
    ends = np.cumsum([len(tokenizer._bytes_of[int(i)]) for i in ids])
    expected = [sum(end <= size for end in ends) for size in sizes]
    for block in (1, 7, 1_000):
        monkeypatch.setattr(shards_module, "BLOCK_TOKENS", block)
        assert shards_module._num_tokens_within(ids, sizes, tokenizer).tolist() == expected
