"""Figures of documents are those counted by hand, for triples and for the dataset made of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from acc_megatron.cli.show import verbs
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.statistics import Filters, statistics
from acc_megatron.errors import ConfigError, DataError


def piece(number: int, kind: str) -> dict[str, str]:
    return {"id": str(number), "title": f"page {number}", "text": "text", "kind": kind}


def write_compiled(folder: Path) -> Path:
    """Search triples with 1 and 2 pieces of evidence and a SQL triple with 1, and three dropped rows."""
    folder.mkdir()
    rows = []
    for number, (agent, num_evidence, tokens) in enumerate((("search", 1, 100), ("search", 2, 300), ("sql", 1, 50))):
        context = [piece(i, "evidence") for i in range(num_evidence)] + [piece(9, "distractor")] * (agent == "search")
        text = {"question": "Q?", "reasoning": "R.", "answer": "A"}
        settings = {"tokens": tokens, "supervised_tokens": 10}
        rows.append({"id": str(number), "agent": agent, "context": context, "settings": settings} | text)
    (folder / "triples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = {"file": "f", "line": 1, "byte_offset": 0, "detail": "d"}
    refused = [("evidence", "wrong_answer"), ("evidence", "wrong_answer"), ("compile", "over_budget")]
    lines = (json.dumps(place | {"stage": stage, "reason": reason}) + "\n" for stage, reason in refused)
    (folder / "quarantine.jsonl").write_text("".join(lines))
    return folder


def test_figures_by_agent_and_drops_by_reason(tmp_path: Path) -> None:
    found = statistics(write_compiled(tmp_path / "triples"), Filters())
    search = found["agents"]["search"]
    assert (search["documents"], search["tokens"], search["supervised_tokens"], search["distractors"]) == (
        2,
        400,
        20,
        2,
    )
    assert search["lengths"]["shortest"] == search["lengths"]["median"] == 100 and search["lengths"]["longest"] == 300
    assert search["evidence"] == {"1": 1, "2": 1} and found["agents"]["sql"]["evidence"] == {"1": 1}
    assert found["dropped"] == [
        {"step": "compile", "reason": "over_budget", "rows": 1},
        {"step": "evidence", "reason": "wrong_answer", "rows": 2},
    ]


@pytest.mark.parametrize(
    ("filters", "documents"),
    [
        ({"agent": "sql"}, {"sql": 1}),
        ({"min_tokens": 100}, {"search": 2}),
        ({"max_tokens": 100}, {"search": 1, "sql": 1}),
        ({"min_evidence": 2}, {"search": 1}),
        ({"max_evidence": 1, "min_tokens": 51}, {"search": 1}),
        ({"reason": "over_budget"}, {"search": 2, "sql": 1}),
    ],
)
def test_filters_choose_documents_and_drops(tmp_path: Path, filters: dict[str, Any], documents: dict[str, int]) -> None:
    found = statistics(write_compiled(tmp_path / "triples"), Filters(**filters))
    assert {agent: figures["documents"] for agent, figures in found["agents"].items()} == documents
    assert len(found["dropped"]) == (1 if "reason" in filters else 2)


def test_a_dataset_folder_has_the_figures_of_its_sample_table_and_other_folders_are_refused(tmp_path: Path) -> None:
    compiled = write_compiled(tmp_path / "triples")
    manifest = convert([compiled], tmp_path / "data", ConvertSettings())
    result = CliRunner().invoke(verbs, ["stats", str(tmp_path / "data"), "--json"])
    found = json.loads(result.stdout)
    assert sum(figures["tokens"] for figures in found["agents"].values()) == manifest["tokens"]
    assert found["agents"]["search"]["evidence"] == {"1": 1, "2": 1} and found["dropped"] == []
    table = CliRunner().invoke(verbs, ["stats", str(compiled)]).stdout.splitlines()
    assert table[1].split()[:3] == ["search", "2", "400"] and table[-1].split() == [
        "dropped",
        "2",
        "evidence:",
        "wrong_answer",
    ]
    with pytest.raises(DataError, match="is neither an output of compile or reason"):
        statistics(tmp_path, Filters())
    with pytest.raises(ConfigError, match="--min-tokens 5 is above --max-tokens 4"):
        Filters(min_tokens=5, max_tokens=4)
