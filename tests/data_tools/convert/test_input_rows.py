"""Published ACC rows, triples and conversations are read unchanged; other shapes are refused with their place."""

import gzip
import io
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acc_megatron.common import json_rows as jsonl
from acc_megatron.common import streams
from acc_megatron.common.json_rows import BadRow, Row
from acc_megatron.data_tools.convert.input_rows import Example, input_files, read_example
from acc_megatron.data_tools.sharding.row_ranges import read_rows, row_ranges
from acc_megatron.errors import DataError

Writer = Callable[[Path, list[Any]], Path]
PUBLISHED = {
    "dialogs": [
        {"role": "user", "content": "  Documents: ...\n\nWho?\n"},
        {"role": "assistant", "content": "<think>\nFirst, \n\nthen.\n</think>\n\nBob.\n"},
    ],
    "ground_truth_answer": "Bob",
    "context_length": "100k",
}


def read(value: dict[str, Any], file: str = "search_agent_data.jsonl") -> Example:
    return read_example(Row(value=value, file=f"/somewhere/{file}", line=7, byte_offset=0, sha256=""))


def texts(example: Example) -> tuple[str | None, str, str, str]:
    """System, user, reasoning and answer of an example with one exchange."""
    *opening, user, reply = example.turns
    assert (user.role, reply.role, reply.supervised) == ("user", "assistant", True)
    return opening[0].text if opening else None, user.text, reply.reasoning, reply.text


def dialog(*messages: tuple[str, Any]) -> dict[str, Any]:
    return {"dialogs": [{"role": role, "content": content} for role, content in messages]}


def test_a_published_row_is_read_as_it_is() -> None:
    example = read(PUBLISHED)
    assert (example.id, example.agent) == ("search_agent_data-000007", "search")
    assert texts(example) == (None, "  Documents: ...\n\nWho?\n", "First, \n\nthen.", "\n\nBob.\n")
    assert example.extra == {"ground_truth_answer": "Bob", "context_length": "100k"}


def test_a_system_message_is_kept_and_an_answer_without_thinking_has_empty_reasoning() -> None:
    example = read(dialog(("system", "Be brief."), USER, ("assistant", "Bob.\n")))
    assert texts(example) == ("Be brief.", "q", "", "Bob.\n")
    assert example.extra == {"reasoning_source": "none"}
    assert "reasoning_source" not in read(PUBLISHED).extra


@pytest.mark.parametrize("key", ["dialogs", "input_messages", "prompt", "messages"])
def test_the_message_fields_of_the_other_configs_are_known(key: str) -> None:
    example = read({key: PUBLISHED["dialogs"], "instance_id": "django-1", "repo": "django"}, "swe_agent_data.jsonl")
    assert (example.id, example.agent, texts(example)[2]) == ("django-1", "swe", "First, \n\nthen.")
    assert example.extra == {"instance_id": "django-1", "repo": "django"}


def test_a_triple_keeps_its_unknown_fields(triple_rows: list[dict[str, Any]]) -> None:
    row = triple_rows[3]
    example = read(row)
    assert (example.id, example.agent) == (row["id"], row["agent"])
    assert (example.num_evidence, example.num_distractors) == (1, 1)
    kept = ("reasoning_source", "ground_truth", "provenance", "settings", "colour")
    assert example.extra == {name: row[name] for name in kept}
    user = texts(example)[1]
    assert all(text in user for text in (row["question"], row["context"][0]["text"], "[Document 2] <think>\n"))


def test_a_triple_with_an_instruction_is_a_triple_and_a_row_of_dolly_is_a_chat() -> None:
    assert read(TRIPLE | {"instruction": "i"}).extra["instruction"] == "i"
    dolly = read({"instruction": "i", "context": "c", "response": "a"})
    assert texts(dolly) == (None, "i\n\nc", "", "a")


def test_a_null_in_an_optional_field_means_that_it_is_absent(triple_rows: list[dict[str, Any]]) -> None:
    example = read(triple_rows[0] | {"agent": None, "provenance": None, "colour": None})
    assert example.agent == "unknown"
    assert example.extra["provenance"] == {} and example.extra["colour"] is None


USER, GOOD = ("user", "q"), ("assistant", "r</think>a")
TRIPLE = {"id": "t", "question": "q", "reasoning": "r", "answer": "a", "context": []}
PIECE = {"id": "p", "title": "t", "text": "x"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"b": 1, "a": 2}, "unknown shape with keys a, b; .*for runs of agents, use 'acc-megatron compile' first"),
        ({"dialogs": "text"}, "unknown shape"),
        (dialog(("system", 5), USER, GOOD), "message 1: the content must be text or a list of text parts, got int"),
        (dialog(GOOD, USER), r"user message and then an assistant message; got roles \['assistant', 'user'\]"),
        (dialog(USER), r"got roles \['user'\]"),
        (dialog(USER, ("assistant", ["r</think>a"])), "message 2: the content must be text .*, got parts of type str"),
        (dialog(USER, ("assistant", [{"type": "image_url"}])), "got parts of type image_url"),
        (dialog(USER, ("judge", "a")), "message 2: the role must be one of system, user, assistant, tool, got 'judge'"),
        ({"dialogs": ["q", "a"]}, "message 1 must be an object with a role and text, got str"),
        (dialog(USER, GOOD) | {"tools": "search"}, "'tools' must be a list of JSON objects"),
        (dialog(USER, GOOD) | {"tools": [5]}, "'tools' must be a list of JSON objects"),
        ({"input_ids": [1, 2], "labels": [1]}, "2 input_ids but 1 labels"),
        ({"input_ids": [1, 2]}, "'labels' must be a list of whole numbers"),
        ({"input_ids": [1, 2.0], "labels": [-100, 2]}, "'input_ids' must be a list of whole numbers"),
        ({"input_ids": [1, 2], "labels": [-100, 3]}, "label 1 is 3, but must be -100 or its token's id 2"),
        ({"input_ids": [1, 2], "labels": [-100, 2], "attention_mask": [0, 1]}, "'attention_mask' contains zeros"),
        (dialog(("user", " \n"), GOOD), "user message is empty"),
        (dialog(USER, ("assistant", "<think>\nan unfinished thought")), "after at most one '<think>...</think>'"),
        (dialog(USER, ("assistant", "r</think>a</think>b")), "after at most one '<think>...</think>'"),
        (dialog(USER, ("assistant", "r</think>\n")), "has no answer"),
        (dialog(USER, ("assistant", " \n")), "has no answer"),
        (TRIPLE | {"context": {}}, "'context' must be a list of pieces, got dict"),
        (TRIPLE | {"context": [PIECE, "x"]}, r"context\[1\] must be an object, got str"),
        (TRIPLE | {"context": [PIECE | {"text": None}]}, r"context\[0\]: 'text' must be a string, got NoneType"),
        (TRIPLE | {"context": [PIECE | {"kind": "?"}]}, "kind must be 'evidence' or 'distractor', got '\\?'"),
        (TRIPLE | {"answer": " "}, "'answer' is empty"),
        ({"context": [], "id": "t", "question": "q", "answer": "a"}, "'reasoning' must be a string, got nothing"),
        (TRIPLE | {"agent": 5}, "'agent' must be a string, got int"),
        (TRIPLE | {"ground_truth": ["a"]}, "'ground_truth' must be a string, got list"),
        (TRIPLE | {"provenance": "file"}, "'provenance' must be an object, got str"),
    ],
)
def test_rows_of_other_shapes_are_refused_with_file_and_line(value: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"^search_agent_data\.jsonl:7: .*{message}"):
        read(value)


def test_input_files_come_in_a_stable_order_and_a_compile_folder_gives_its_triples(tmp_path: Path) -> None:
    compiled, loose = tmp_path / "compiled", tmp_path / "loose"
    for folder, names in (
        (compiled, ["triples.jsonl", "quarantine.jsonl"]),
        (loose, ["b.jsonl", "a.parquet", "c.txt"]),
    ):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    assert input_files([compiled, loose]) == [compiled / "triples.jsonl", loose / "a.parquet", loose / "b.jsonl"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty contains no \.jsonl .* or \.parquet file"):
        input_files([tmp_path / "empty"])
    with pytest.raises(DataError, match=r"no input at .*absent"):
        input_files([tmp_path / "absent"])


@pytest.mark.parametrize("rows_per_range", [1, 2, 3, 4, 100])
def test_ranges_cover_every_row_with_its_line_number(
    rows_per_range: int, tmp_path: Path, write_rows: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "MAX_ROW_BYTES", 100)
    too_long, blank_and_long = '"' + "x" * 200 + '"', " " * 200
    rows = [{"n": 1}, "", {"n": "\u2028"}, "{broken", "  ", too_long, {"n": 4}, blank_and_long, "[]", {"n": 5}, ""]
    path = write_rows(tmp_path / "a.jsonl", rows)
    ranges = list(row_ranges(path, rows_per_range))
    found = [[row.line for row in read_rows(part)] for part in ranges]
    assert [len(lines) for lines in found] == [part.num_rows for part in ranges]
    assert [line for lines in found for line in lines] == [1, 3, 4, 6, 7, 8, 9, 10]
    assert [part.first_row for part in ranges] == list(range(0, 8, rows_per_range))
    bad = [row.reason for part in ranges for row in read_rows(part) if isinstance(row, BadRow)]
    assert bad == ["broken_json", "line_too_long", "line_too_long", "not_an_object"]


def test_a_huge_line_is_divided_into_ranges_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(600 << 20)  # a sparse file: 600 MiB without a newline
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert [part.num_rows for part in row_ranges(path, 10)] == [1]
    grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert sys.platform != "linux" or grown_bytes < 200 << 20


@pytest.mark.parametrize("rows_per_range", [1, 3, 4, 7, 100])
def test_parquet_ranges_cover_every_row(rows_per_range: int, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": list(range(10))}), tmp_path / "a.parquet", row_group_size=4)
    rows = [row for part in row_ranges(tmp_path / "a.parquet", rows_per_range) for row in read_rows(part)]
    assert [(row.line, row.value["n"]) for row in rows if isinstance(row, Row)] == [(n + 1, n) for n in range(10)]


def test_a_damaged_parquet_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": [json.dumps(n) * 50 for n in range(100)]}), path, compression="none", write_page_checksum=True
    )
    whole = path.read_bytes()
    path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    with pytest.raises(DataError, match=r"a\.parquet is damaged in row group 0"):
        list(read_rows(next(row_ranges(path, 10))))
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"a\.parquet is not a readable Parquet file"):
        list(row_ranges(path, 10))


def test_reasoning_in_its_own_field_is_read() -> None:
    value = dialog(USER, ("assistant", "a"))
    value["dialogs"][1]["reasoning_content"] = "r"
    assert texts(read(value))[2:] == ("r", "a")
    value["dialogs"][1]["content"] = "own</think>a"
    assert texts(read(value))[2] == "own"


@pytest.mark.parametrize("rows_per_range", [1, 3, 100])
def test_a_compressed_file_has_the_ranges_of_the_plain_file(rows_per_range: int, tmp_path: Path) -> None:
    data = b"".join(b'{"n": %d}\n\n' % n for n in range(10))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data))
    (tmp_path / "a.jsonl.zst").write_bytes(pa.compress(data, codec="zstd", asbytes=True))
    found = [
        [row.value["n"] for part in row_ranges(path, rows_per_range) for row in read_rows(part) if isinstance(row, Row)]
        for path in input_files([tmp_path])
    ]
    assert found == [list(range(10))] * 2


def test_ranges_of_a_compressed_file_are_the_same_rows_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(json.dumps({"n": number}).encode() + b"\n" for number in range(1000))))
    ranges = list(row_ranges(path, 64))
    for order in (ranges, ranges[::-1], ranges[5:] + ranges[:5]):
        found = {part.first_row: [row.value["n"] for row in read_rows(part) if isinstance(row, Row)] for part in order}
        assert [n for first in sorted(found) for n in found[first]] == list(range(1000))
    path.write_bytes(gzip.compress(b'{"n": -1}\n' * 1000))
    assert {row.value["n"] for row in read_rows(ranges[3]) if isinstance(row, Row)} == {-1}, "a new file is opened"


def test_globs_and_standard_input_are_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.txt"):
        (tmp_path / name).touch()
    assert input_files([tmp_path / "*.jsonl"]) == [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    with pytest.raises(DataError, match=r"no input at .*\*\.csv"):
        input_files([tmp_path / "*.csv"])
    streams._spooled_standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{}\n")))
    (path,) = input_files([Path("-")])
    assert path.name == "stdin.jsonl" and path.read_bytes() == b"{}\n"
    streams._spooled_standard_input.cache_clear()
