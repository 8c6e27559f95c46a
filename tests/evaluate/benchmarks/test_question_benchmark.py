"""From settings to questions: published files, seeded samples, and counts of the rows that are left out."""

import dataclasses
import datetime
import json
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer, load_tokenizer
from acc_megatron.errors import DataError
from acc_megatron.evaluate.benchmarks.benchmark import Draw
from acc_megatron.evaluate.benchmarks.graphwalks.problem import make_problems
from acc_megatron.evaluate.benchmarks.graphwalks.prompt import prompt
from acc_megatron.evaluate.benchmarks.mrcr.generator import make_rows
from acc_megatron.evaluate.benchmarks.published_rows import find_files, read_rows, sample_rows
from acc_megatron.evaluate.benchmarks.question import Question
from acc_megatron.evaluate.benchmarks.registry import BENCHMARKS


@cache
def qwen() -> Tokenizer:
    return load_tokenizer("qwen3")


def questions(*, kind: str, limit: int | None = None, seed: int = 0, **keys: Any) -> list[Question]:
    """The questions of a benchmark `b` with these settings."""
    return questions_and_left_out(kind=kind, limit=limit, seed=seed, **keys)[0]


def questions_and_left_out(
    *, kind: str, limit: int | None = None, seed: int = 0, **keys: Any
) -> tuple[list[Question], dict[str, int]]:
    """The questions of a benchmark `b`, and its counts of left-out rows."""
    benchmark: Any = BENCHMARKS[kind]
    settings = benchmark.settings(kind=kind, **keys)
    return benchmark.questions("b", settings, Draw(seed=seed, limit=limit, repeats=1), qwen().count)


def mrcr_rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    made = make_rows(count, length_tokens=1500, count_tokens=qwen().count, seed=0, **changes)
    return [dataclasses.asdict(row) for row in made]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as Parquet or JSON lines, by the file's name."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def test_published_mrcr_files_are_read(tmp_path: Path) -> None:
    """All three needle counts, in the published columns and with a date column, which JSON cannot represent."""
    day = datetime.datetime(2025, 4, 12)
    for needles in (2, 4, 8):
        rows = mrcr_rows(2, needles=[needles])
        write_rows(tmp_path / f"{needles}needle.parquet", [row | {"date_added": day} for row in rows])
    made = questions(kind="mrcr", rows=[str(tmp_path / "*.parquet")])
    assert [question.groups["n_needles"] for question in made] == ["2", "2", "4", "4", "8", "8"]
    for needles in (2, 4, 8):
        for number, row in enumerate(mrcr_rows(2, needles=[needles]), start=1):
            (question,) = [one for one in made if one.id == f"b/{tmp_path}/{needles}needle.parquet:{number}"]
            assert list(question.messages) == json.loads(row["prompt"])
            assert question.grade(row["answer"])["score"] == 1
            assert question.num_tokens == sum(qwen().count(m["content"]) for m in json.loads(row["prompt"]))


def test_published_graphwalks_files_are_read_in_both_wordings(tmp_path: Path) -> None:
    rows = []
    for wording in ("original", "corrected"):
        for one in make_problems(2, length_chars=4000, seed=1, wording=wording):
            row = {"prompt": one.prompt, "answer_nodes": list(one.answer_nodes), "problem_type": one.problem_type}
            rows.append(row | {"prompt_chars": len(one.prompt), "date_added": datetime.date(2025, 4, 12)})
    write_rows(tmp_path / "rows.parquet", rows)
    made = questions(kind="graphwalks", rows=[str(tmp_path / "rows.parquet")])
    kinds = {(question.groups["problem_type"], question.groups["wording"]) for question in made}
    # the corrected wording changed the sentence about BFS, which every prompt contains
    assert kinds == {(operation, wording) for operation in ("parents", "bfs") for wording in ("original", "corrected")}
    for question, row in zip(made, rows, strict=True):
        assert question.messages[0]["content"] == row["prompt"]
        assert question.grade(f"Final Answer: [{', '.join(row['answer_nodes'])}]")["f1"] == 1
    assert not any(question.corrected for question in made)


def test_a_published_multiple_choice_file_is_one_json_list(tmp_path: Path) -> None:
    row = {"_id": "66f", "domain": "Single-Document QA", "sub_domain": "Legal", "difficulty": "hard", "length": "short",
           "question": "Who won?", "choice_A": "Ann", "choice_B": "Bob", "choice_C": "Cid", "choice_D": "Dee",
           "answer": "B", "context": "Bob won.\u2028 \u96ea"}  # fmt: skip
    path = tmp_path / "data.json"
    path.write_text(json.dumps([row | {"_id": str(k), "answer": "ABCD"[k]} for k in range(4)], indent=4))
    made = questions(kind="multiple_choice", rows=[str(path)])
    assert [question.id for question in made] == [f"b/{path}:{line}" for line in (1, 2, 3, 4)]
    for question, letter in zip(made, "ABCD", strict=True):
        assert (
            question.groups["domain"] == "Single-Document QA"
            and "Bob won.\u2028 \u96ea" in question.messages[0]["content"]
        )
        assert question.grade(f"The correct answer is ({letter})") == {"accuracy": 1, "flexible_accuracy": 1}


def test_older_graphwalks_answers_are_corrected_and_counted(tmp_path: Path) -> None:
    text = prompt([("a1", "a1"), ("b2", "a1"), ("a1", "b2")], "parents", "a1")
    path = tmp_path / "rows.jsonl"
    write_rows(
        path, [{"prompt": text, "answer_nodes": nodes, "problem_type": "parents"} for nodes in (["b2"], ["a1", "b2"])]
    )
    made = questions(kind="graphwalks", rows=[str(path)])
    assert [question.corrected for question in made] == [False, True]
    assert [question.grade("Final Answer: [b2]")["f1"] for question in made] == [1, 1]


def test_parquet_and_json_lines_give_the_same_rows(tmp_path: Path) -> None:
    rows = mrcr_rows(3)
    for name in ("rows.parquet", "rows.jsonl"):
        write_rows(tmp_path / name, rows)
    parts = [
        [placed.row for placed in read_rows(tmp_path / f"rows.{kind}", list(rows[0]))] for kind in ("parquet", "jsonl")
    ]
    assert parts[0] == parts[1] == rows


def test_a_sample_is_seeded_uniform_and_in_the_order_of_the_files(tmp_path: Path) -> None:
    files = []
    for number in range(2):
        files.append(tmp_path / f"{number}.jsonl")
        write_rows(files[-1], [{"text": "x", "n": 10 * number + k} for k in range(10)])
    counts = dict.fromkeys(range(20), 0)
    for seed in range(400):
        rows, left_out = sample_rows(files, ["text", "n"], "text", max_chars=None, limit=5, seed=seed)
        numbers = [placed.row["n"] for placed in rows]
        assert numbers == sorted(numbers) and len(set(numbers)) == 5 and left_out == {"not_sampled": 15}
        for number in numbers:
            counts[number] += 1
    assert all(55 < count < 145 for count in counts.values())  # 100 expected, standard deviation 8.7


def test_rows_over_a_length_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "p" * size, "answer_nodes": [], "problem_type": "bfs"} for size in (10, 100, 20, 11)]
    write_rows(path, rows)
    made, left_out = questions_and_left_out(limit=2, kind="graphwalks", rows=[str(path)], max_chars=50)
    assert left_out == {"over_max_chars": 1, "not_sampled": 1}
    assert len(made) == 2
    with pytest.raises(DataError, match=r"no row remains, left out: \{'over_max_chars': 4\}"):
        questions(kind="graphwalks", rows=[str(path)], max_chars=5)


def test_generated_rows_fill_every_length_and_a_limit_keeps_each() -> None:
    settings: dict[str, Any] = {"kind": "mrcr", "items": 4, "length_tokens": [1500, 5000], "needles": [2, 4]}
    made = questions(**settings)
    assert [question.groups["n_needles"] for question in made] == ["2", "4"] * 4
    assert sum(question.num_tokens > 3500 for question in made) == 4
    assert len({question.id for question in made}) == len({question.sha256 for question in made}) == 8
    limited, left_out = questions_and_left_out(limit=4, **settings)
    assert sum(question.num_tokens > 3500 for question in limited) == 2
    assert left_out == {"not_sampled": 4}
    assert questions(seed=1, **settings)[0].sha256 != made[0].sha256


def test_a_limit_keeps_every_needle_count_and_operation() -> None:
    def kinds(group: str, limit: int, **settings: Any) -> list[str]:
        made = questions(limit=limit, **settings)
        assert len(made) == limit == len({question.sha256 for question in made})
        return [question.groups[group] for question in made]

    rows: dict[str, Any] = {"kind": "mrcr", "items": 4, "length_tokens": [1500, 1800]}
    assert kinds("n_needles", 4, **rows) == ["2", "4", "2", "4"]
    walks: dict[str, Any] = {"kind": "graphwalks", "items": 4, "length_tokens": [900, 1000, 1100]}
    assert kinds("problem_type", 2, **walks) == ["parents", "bfs"]
    assert kinds("problem_type", 5, **walks) == ["parents", "bfs", "parents", "bfs", "parents"]
    assert kinds("problem_type", 1, **walks) == ["parents"]


def test_wording_and_operations_are_settings() -> None:
    made = questions(kind="graphwalks", items=2, length_tokens=[1200], operations=["bfs"], wording="original")
    assert [question.groups["problem_type"] for question in made] == ["bfs", "bfs"]
    assert {question.groups["wording"] for question in made} == {"original"}


def test_a_damaged_file_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for bad, message in (("{", "broken_json"), ("[1]", "not_an_object")):
        path.write_text('{"a": 1}\n' + bad + "\n")
        with pytest.raises(DataError, match=f"rows.jsonl:2: {message}"):
            list(read_rows(path, ["a"]))
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a readable Parquet"):
        list(read_rows(tmp_path / "rows.parquet", ["a"]))
    write_rows(tmp_path / "rows.parquet", [{"a": f"{number} " * 5000} for number in range(50)])
    data = bytearray((tmp_path / "rows.parquet").read_bytes())
    data[2000:2010] = bytes(10)  # within a page: its checksum or compression is then wrong
    (tmp_path / "rows.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"rows\.parquet is damaged after row \d+"):
        list(read_rows(tmp_path / "rows.parquet", ["a"]))
    for folder in (str(tmp_path), ""):
        with pytest.raises(DataError, match="no file of rows at "):
            list(read_rows(*find_files([folder]), ["a"]))
    with pytest.raises(DataError, match=r"no file of rows at .*absent"):
        find_files([str(tmp_path / "absent*.parquet")])
