"""D9: every kept triple of generated rows has the generator's parts, and every drop reason is true."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from support.generated_runs.made import Made
from support.generated_runs.search_rows import search_row
from support.generated_runs.sql_rows import sql_row, write_database
from support.generated_runs.swe_rows import swe_row, write_instances

from acc_megatron.data_tools.compile.compile import compile_inputs
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer

MAKERS = (search_row, sql_row, swe_row)


@pytest.mark.parametrize("num_rows", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_part_is_the_generators_and_every_drop_reason_is_true(
    num_rows: int, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    chosen = random.Random(num_rows)
    made = [MAKERS[number % 3](number, chosen) for number in range(num_rows)]
    (tmp_path / "in").mkdir()
    runs = tmp_path / "in" / "runs.jsonl"
    runs.write_text("".join(json.dumps(row.row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    manifest = compile_inputs(
        [runs], tmp_path / "out", agent="auto", resources=[write_database(tmp_path), write_instances(tmp_path)],
        settings=CompileSettings(), tokenizer=tokenizer,
    )  # fmt: skip
    assert manifest["documents_in"] == num_rows and manifest["unjudged"] == 0
    assert len({row.name for row in made}) > min(num_rows, 600) // 3
    dropped = {row["line"]: row["reason"] for row in rows_of(tmp_path / "out" / "quarantine.jsonl")}
    wrong = [
        (row.name, row.reason, dropped.get(line, "kept"))
        for line, row in enumerate(made, start=1)
        if dropped.get(line, "") != row.reason
    ]
    assert not wrong, Counter(wrong).most_common(8)
    for triple in rows_of(tmp_path / "out" / "triples.jsonl"):
        check(triple, made[triple["provenance"]["line"] - 1])


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def check(triple: dict[str, object], made: Made) -> None:
    context = triple["context"]
    assert (
        isinstance(context, list)
        and str(triple["question"]).partition("\n\nGive the result rows")[0].partition("\n\nWrite the patch")[0]
        == made.question
    ), made.name
    assert (triple["reasoning"], triple["answer"]) == (made.reasoning, made.answer), made.name
    evidence = {piece["id"]: piece["text"] for piece in context if piece["kind"] == "evidence"}
    assert set(evidence) == set(made.evidence), made.name
    assert all(text in evidence[id_] for id_, text in made.evidence.items()), made.name
    assert ";base64," not in json.dumps(context)
