"""Fixtures of the dataset tests: the real tokenizer, clean chats, and one small dataset folder."""

import fcntl
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer

from acc_megatron.common.atomic_files import atomic_folder
from acc_megatron.data_tools.convert import convert as convert_module
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.tokenizer.huggingface_files import write_tokenizer_files
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer, load_tokenizer

WORDS = (
    "the court of Graz  def f(x):\n\treturn x[1:]  12345 3.14 don't  naïve e\u0301te\u0301 \u1112\u1161\u11ab "
    "世界，你好。 漢字かな 👩\u200d🚀 🙂 Привет  != <= </div> <b> | <|x|> \r\n \n \n\n\n --- \u00a0 \u3000 \u2028 ʼ ﬁ Å"
).split(" ")
BLANKS = ("", "", " ", "\t", "\n", "\n\n", " \n  ", "\r\n")
MAX_TOKENS = 900


def clean_text(generator: random.Random, num_words: int) -> str:
    """Text in several scripts without control strings; its first and last words are plain."""
    body = (generator.choice(WORDS) + generator.choice(["", " ", " ", "\n"]) for _ in range(num_words))
    return f"It {''.join(body)} end"


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return load_tokenizer("qwen3")


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """The Hugging Face files of our tokenizer, as in an exported model; made once for all workers of a test run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "tokenizer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "tokenizer").is_dir():
            with atomic_folder(shared / "tokenizer") as folder:
                write_tokenizer_files(tokenizer, folder, max_length_tokens=4096)
    return shared / "tokenizer"


@pytest.fixture(scope="session")
def huggingface(tokenizer_folder: Path) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))


@pytest.fixture(scope="session")
def clean_chats() -> list[tuple[str, str, str]]:
    """200 of (user, reasoning, answer) without control strings; white space at their ends can join the template's."""
    generator = random.Random(20)
    chats = []
    for _ in range(200):
        user, reasoning, answer = (clean_text(generator, generator.randint(0, size)) for size in (80, 30, 6))
        before, after = generator.choice(BLANKS), generator.choice(BLANKS)
        chats.append((before + user + after, reasoning + after.strip("\n"), answer + generator.choice(BLANKS)))
    return chats


@pytest.fixture(scope="session")
def triple_rows() -> list[dict[str, Any]]:
    """64 good triples; tests do not change them."""
    generator = random.Random(21)
    return [
        {
            "id": f"run-{i}",
            "agent": ("search", "swe", "sql")[i % 3],
            "question": clean_text(generator, 5),
            "context": [
                {"id": "e", "title": "Evidence", "text": clean_text(generator, 60), "kind": "evidence"},
                {"id": "d", "title": "<think>", "text": clean_text(generator, 40), "kind": "distractor"},
            ],
            "reasoning": clean_text(generator, 20),
            "answer": clean_text(generator, 3),
            "reasoning_source": "agent",
            "ground_truth": "g",
            "provenance": {"file": "runs.jsonl", "line": i + 1},
            "settings": {"seed": 1},
            "colour": f"unknown field {i}",
        }
        for i in range(64)
    ]


def _write_rows(path: Path, rows: list[Any]) -> Path:
    """Write JSON lines; a string is written unchanged."""
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    return path


@pytest.fixture(scope="session")
def write_rows() -> Callable[[Path, list[Any]], Path]:
    return _write_rows


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "ROWS_PER_SHARD", 8)


@pytest.fixture(scope="session")
def mixed_input(tmp_path_factory: pytest.TempPathFactory, triple_rows: list[dict[str, Any]]) -> Path:
    """64 good triples, a broken line, a row of unknown shape, one with a control string, and one that is too long."""
    good = triple_rows[0]
    long = good | {"question": "word " * MAX_TOKENS}
    bad: list[Any] = ["{broken", {"shape": "other"}, good | {"answer": "<|im_end|>"}, long]
    return _write_rows(tmp_path_factory.mktemp("input") / "triples.jsonl", [*triple_rows, *bad])


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, mixed_input: Path) -> Path:
    """The dataset folder of the mixed input: 9 row ranges, 8 of them with documents. Copy it before you damage it."""
    out = tmp_path_factory.mktemp("dataset") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_module, "ROWS_PER_SHARD", 8)
        convert([mixed_input], out, ConvertSettings(max_tokens=MAX_TOKENS), max_bad_share=0.1)
    return out
