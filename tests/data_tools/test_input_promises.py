"""Promises for any input: a bad line costs one line, memory is bounded, and no name in the data is ever opened."""

import gzip
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.commands import run_command

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.compile.compile import compile_inputs
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.convert.convert import convert
from acc_megatron.data_tools.convert.shards import ConvertSettings
from acc_megatron.data_tools.sources.resources import is_safe_path
from acc_megatron.data_tools.sources.sql import reader as sql
from acc_megatron.data_tools.sources.sql.sqlite_readonly import Limits, open_readonly
from acc_megatron.data_tools.sources.swe import reader as swe
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import Dropped, TooManyBadRows

GIB = 1 << 30


def search_row(number: int, **changes: Any) -> dict[str, Any]:
    hits = '[{"url": "u", "title": "T", "text": "Some text."}]'
    step = {"thought": "I look.", "tool": "search", "input": {"query": "x"}, "output": hits}
    return {"id": number, "question": f"Who is {number}?", "steps": [step], "answer": "Bob"} | changes


BAD_LINES: list[tuple[bytes, str]] = [
    (b'{"question": "\xff"}', "invalid_utf8"),
    (b'{"question": "\x00"}', "nul"),
    (b'{"question": ', "broken_json"),
    (b'{"question": NaN}', "nan"),
    (b'{"question": "\\ud800"}', "lone_surrogate"),
    (b'{"question": 1, "question": 2}', "duplicate_key"),
    (b'{"question": ' + b"9" * 5000 + b"}", "number_too_long"),
    (b'{"question": ' + b"[" * 1024 + b"]" * 1024 + b"}", "too_deep"),
    (b'\xef\xbb\xbf{"question": 1}', "bom"),
    (b'{"question": "' + b"x" * (65 << 20) + b'"}', "line_too_long"),
    (json.dumps(search_row(0, answer=None)).encode(), "no_ground_truth"),  # a missing field
    (json.dumps(search_row(0, steps=[{"tool": 3, "output": "search"}, {"tool": "search"}])).encode(), "malformed"),
]


def with_bad_lines(path: Path, lines: list[bytes], bad_lines: list[tuple[bytes, str]]) -> dict[int, tuple[int, str]]:
    """Write a thousand lines, of which twelve are bad; returns line number -> offset and reason of each bad one."""
    expected = {}
    for (line, reason), number in zip(bad_lines, range(7, 1000, 83), strict=False):
        lines[number] = line
        expected[number + 1] = (sum(len(before) + 1 for before in lines[:number]), reason)
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert (len(lines), len(expected)) == (1000, 12)
    return expected


def first_lines(path: Path, count: int) -> Path:
    """A file with the first lines of another."""
    with path.open("rb") as file:
        lines = [next(file) for _ in range(count)]
    first = path.with_name(f"first_{path.name}")
    first.write_bytes(b"".join(lines))
    return first


def test_a_thousand_lines_with_twelve_bad_give_988_and_twelve_quarantine_rows_with_place_and_reason(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """D5: every bad line has a place and a reason; with more bad lines than --max-bad allows, the exit code is 3."""
    path = tmp_path / "runs.jsonl"
    expected = with_bad_lines(path, [json.dumps(search_row(number)).encode() for number in range(1000)], BAD_LINES)
    options: dict[str, Any] = {"agent": "auto", "resources": [], "settings": CompileSettings(), "tokenizer": tokenizer}
    summary = compile_inputs([path], tmp_path / "out", max_bad_share=0.01, **options)
    assert (summary["documents_in"], summary["documents_out"]) == (1000, 988)
    refused = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_bytes().splitlines()]
    assert len(refused) == 12
    assert {row["line"]: (row["byte_offset"], row["reason"]) for row in refused} == expected
    assert all(row["file"] == str(path) and row["detail"] for row in refused)
    with pytest.raises(TooManyBadRows) as error:  # two of the first hundred lines are bad
        compile_inputs([first_lines(path, 100)], tmp_path / "other", max_bad_share=0.019, **options)
    assert error.value.exit_code == 3


def test_a_thousand_triples_with_twelve_bad_lines_convert_to_988_documents_and_twelve_quarantine_rows(
    tmp_path: Path,
) -> None:
    """D5: also over several shards, with lines and offsets counted from the start of the file."""
    triple = {"question": "Who?", "context": [], "reasoning": "It says so.", "answer": "Bob"}
    lines = [json.dumps({"id": str(number)} | triple).encode() for number in range(1000)]
    wrong = [{"id": "no answer"} | triple | {"answer": None}, {"id": "no list"} | triple | {"context": 3}]
    bad_lines = BAD_LINES[:10] + [(json.dumps(row).encode(), "unknown_shape") for row in wrong]
    path = tmp_path / "triples.jsonl"
    expected = with_bad_lines(path, lines, bad_lines)
    manifest = convert([path], tmp_path / "out", ConvertSettings(), max_bad_share=0.012)
    assert (manifest["documents_in"], manifest["documents_out"], manifest["shards"]) == (1000, 988, 4)
    refused = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_bytes().splitlines()]
    assert len(refused) == 12
    assert {row["line"]: (row["byte_offset"], row["reason"]) for row in refused} == expected
    assert all(row["file"] == path.name and row["detail"] for row in refused)
    with pytest.raises(TooManyBadRows) as error:
        convert([first_lines(path, 100)], tmp_path / "other", ConvertSettings(), max_bad_share=0.019)
    assert error.value.exit_code == 3 and not (tmp_path / "other").exists()


def hostile_file(folder: Path, kind: str) -> Path:
    """1 GiB without a newline, or compressed by 1000 : 1 or more, created without writing 1 GiB."""
    path = folder / {"sparse": "a.jsonl", "gzip": "a.jsonl.gz", "zstd": "a.jsonl.zst", "document": "a.json.gz"}[kind]
    block = bytes(16 << 20)
    if kind == "sparse":
        with path.open("wb") as file:
            file.truncate(GIB)
    else:
        member = pa.compress(block, codec="zstd", asbytes=True) if kind == "zstd" else gzip.compress(block)
        path.write_bytes(member * (GIB // len(block)))
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("sparse", "line_too_long"),
        ("gzip", "compression_ratio"),
        ("zstd", "compression_ratio"),
        ("document", "compression_ratio"),
    ],
)
def test_hostile_input_cannot_exhaust_the_memory(tmp_path: Path, kind: str, reason: str) -> None:
    """S5: 1 GiB without a newline, and gzip or zstd of ratio 1000 : 1, are refused within 200 MiB of memory."""
    path = hostile_file(tmp_path, kind)
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom acc_megatron.data_tools.compile.inputs import discover\n"
        "from acc_megatron.data_tools.rows.row_files import rows_of\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbefore = peak()\n"
        "path = Path(sys.argv[1])\nfound = discover([path])\n"
        "print([row.reason for row in rows_of(path)], (peak() - before) // 1024)"
    )
    done = run_command([sys.executable, "-c", code, str(path)])
    assert done.returncode == 0, done.stderr
    reasons, grown_mib = done.stdout.strip().rsplit(" ", 1)
    assert reasons == f"['{reason}']"
    assert sys.platform != "linux" or int(grown_mib) < 200


OPENED: list[str] = []


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        OPENED.append(os.fsdecode(arguments[0]))


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The paths that this process opens during the test."""
    if not getattr(_note_opened, "is_on", False):
        sys.addaudithook(_note_opened)  # an audit hook cannot be removed
        _note_opened.is_on = True  # type: ignore[attr-defined]
    OPENED.clear()
    yield OPENED


BAD_NAMES = [
    "../secret.py",
    "a/../../secret.py",
    "/etc/secret.py",
    "se\0cret.py",
    "secret/" * 43 + "a.py",
    "a\\secret.py",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_paths_in_the_data_are_never_opened(tmp_path: Path, name: str, opened: list[str]) -> None:
    """S6: names in the data are labels and are never opened."""
    assert not is_safe_path(name)
    instance = {
        "instance_id": "o__t-1",
        "repo": name,
        "base_commit": name,
        "problem_statement": "Title",
        "patch": f"--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-x\n+y\n",
        "files_at_base_commit": {name: "x", "a.py": "x"},
    }
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "instances.json").write_text(json.dumps([instance]))
    resources = discover([tmp_path / "in"]).resources
    assert list(resources.files("o__t-1")) == ["a.py"]
    steps = [{"action": f"open {name}", "observation": f"[File: {name} (1 lines total)]"}]
    run = {"instance_id": "o__t-1", "trajectory": steps}
    with pytest.raises(Dropped, match=r"unsafe_path"):
        swe.read(Row(value=run, file="x.traj", line=1, byte_offset=0, sha256="0" * 64), resources)
    query = {"db": name, "question": "q", "gold_sql": "SELECT 1", "steps": [{"tool": "sql", "input": "SELECT 1"}]}
    with pytest.raises(Dropped, match=r"no_database"):
        sql.read(Row(value=query, file="x.jsonl", line=1, byte_offset=0, sha256="0" * 64), resources)
    assert not [path for path in opened if "secret" in path]


def test_a_link_to_outside_of_a_folder_is_listed_and_not_read(tmp_path: Path, opened: list[str]) -> None:
    (tmp_path / "secret.jsonl").write_text("{}\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("{}\n")
    (tmp_path / "in" / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    opened.clear()
    found = discover([tmp_path / "in"])
    assert [path.name for path in found.files] == ["a.jsonl"]
    assert [path.name for path in found.ignored] == ["link.jsonl"]
    assert not [path for path in opened if path.endswith(("secret.jsonl", "link.jsonl"))]


@pytest.mark.parametrize(
    "query",
    [
        "ATTACH 'made.sqlite' AS other",
        "PRAGMA writable_schema = ON",
        "CREATE TEMP TABLE t2 (a)",
        "SELECT load_extension('x')",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    ],
)
def test_agent_sql_cannot_write_or_hang(tmp_path: Path, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S7: ATTACH, PRAGMA, temporary tables, extensions and an endless query leave the database unchanged."""
    connection = sqlite3.connect(tmp_path / "shop.sqlite")
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    connection.close()
    before = (tmp_path / "shop.sqlite").read_bytes()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sql, "open_readonly", lambda path: open_readonly(path, Limits(seconds=0.2)))
    resources = discover([tmp_path / "shop.sqlite", write_row(tmp_path)]).resources
    steps = [{"tool": "sql", "input": "SELECT a FROM t", "output": "1"}]
    value = {"db": "shop", "question": "q", "gold_sql": query, "steps": steps}
    with pytest.raises(Dropped) as dropped:
        sql.read(Row(value=value, file="x.jsonl", line=1, byte_offset=0, sha256="0" * 64), resources)
    assert dropped.value.reason in ("database_not_allowed", "database_time_limit")
    assert (tmp_path / "shop.sqlite").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["row.jsonl", "shop.sqlite"]


def write_row(folder: Path) -> Path:
    (folder / "row.jsonl").write_text("{}\n")
    return folder / "row.jsonl"
