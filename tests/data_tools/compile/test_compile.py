"""Compiling files gives a result for every row and the same bytes for the same input."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import SHARED_DATA

from acc_megatron.data_tools.compile.compile import compile_inputs
from acc_megatron.data_tools.compile.near_duplicates import NearSettings
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.convert.render import render_turns, triple_turns
from acc_megatron.data_tools.schema import Triple
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer, load_tokenizer
from acc_megatron.errors import DataError, TooManyBadRows

DATA = SHARED_DATA


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("qwen3")


def search_row(answer: str = "Paris", truth: object = "Paris", question: str = "Where?") -> dict[str, Any]:
    hits = "A Google search for 'x' found 1 results:\n\n## Web Results\n1. [T](https://x.org)\n\nIt is Paris."
    return {
        "task": "agent/multiturn_search",
        "answer": truth,
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": f"rules\n\nUser: {question}"},
            {"role": "assistant", "content": "<tool_call>{}</tool_call>"},
            {"role": "user", "content": f"<tool_response>{hits}</tool_response>"},
            {"role": "assistant", "content": f"<think>I see.</think><answer>{answer}</answer>"},
        ],
    }


def write(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    path.write_bytes(b"".join(text + b"\n" for text in texts))
    return path


def run(inputs: Path, out: Path, tokenizer: Tokenizer, agent: str = "auto", **options: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"resources": [], "settings": CompileSettings(), "tokenizer": tokenizer}
    defaults["max_bad_share"] = 0.5
    return compile_inputs([inputs], out, agent=agent, **(defaults | options))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    good = search_row()
    no_answer = search_row(question="What?")
    del no_answer["messages"][-1]
    write(folder / "a.jsonl", good, b'{"a": "\xff"}', no_answer, {"foo": 1, "bar": 2}, search_row(answer="Rome"), good)
    (folder / "cut.traj").write_text('{"trajectory": [{"obser')
    write(folder / "instances.jsonl", {"instance_id": "o__t-1", "patch": "p"})
    return folder


def test_every_row_is_a_triple_or_has_a_reason(tmp_path: Path, inputs: Path, tokenizer: Tokenizer) -> None:
    summary = run(inputs, tmp_path / "out", tokenizer)
    assert (summary["documents_in"], summary["documents_out"]) == (7, 1)
    assert summary["dropped"] == {
        "broken_json": 1,
        "duplicate_id": 1,
        "invalid_utf8": 1,
        "no_answer": 1,
        "unrecognised": 1,
        "wrong_answer": 1,
    }
    refused = read_lines(tmp_path / "out" / "quarantine.jsonl")
    found = [(Path(row["file"]).name, row["line"], row["stage"], row["reason"]) for row in refused]
    assert found == [
        ("a.jsonl", 2, "read", "invalid_utf8"),
        ("a.jsonl", 3, "evidence", "no_answer"),
        ("a.jsonl", 4, "recognise", "unrecognised"),
        ("a.jsonl", 5, "evidence", "wrong_answer"),
        ("a.jsonl", 6, "compile", "duplicate_id"),
        ("cut.traj", 1, "read", "broken_json"),
    ]
    assert refused[2]["detail"].startswith("keys: 'foo', 'bar'; no known format")
    first_bytes = (inputs / "a.jsonl").read_bytes().index(b'{"a"')
    assert refused[0]["byte_offset"] == first_bytes


def test_pass_rates_count_answers_and_token_counts_balance_for_every_drop_reason(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = []
    for number in range(10):
        text = "far too long " * 500 if number in (2, 5) else f"Page of {number}."
        step = {"tool": "search", "input": "x", "output": json.dumps([{"url": "u", "title": "T", "text": text}])}
        step["thought"] = "I look."
        truth = "Eve" if number in (3, 4) else "Bob"
        rows.append({"question": f"Who is {number}?", "steps": [step], "answer": "Bob", "ground_truth": truth})
    write(tmp_path / "runs.jsonl", *rows, rows[0])
    summary = run(tmp_path / "runs.jsonl", tmp_path / "out", tokenizer, settings=CompileSettings(budget_tokens=900))
    assert summary["dropped"] == {"duplicate_id": 1, "over_budget": 2, "wrong_answer": 2}
    assert summary["by_agent"]["search"]["pass_rate"] == summary["pass_rate"] == 9 / 11
    details = [row["detail"] for row in read_lines(tmp_path / "out" / "quarantine.jsonl") if row["stage"] == "compile"]
    tokens = sum(int(detail.split()[0]) for detail in details if detail.endswith("the budget is 900"))
    again = read_lines(tmp_path / "out" / "triples.jsonl")[0]["settings"]["tokens"]
    assert tokens > 2 * 1_000 and summary["dropped_tokens"] == {"duplicate_id": again, "over_budget": tokens}
    assert summary["tokens_in"] == summary["tokens"] + tokens + again
    pytest.importorskip("datasketch")
    near = run(tmp_path / "runs.jsonl", tmp_path / "near", tokenizer, near=NearSettings(contexts=0.1))
    lengths = [row["settings"]["tokens"] for row in read_lines(tmp_path / "near" / "triples.jsonl")]
    everything = run(tmp_path / "runs.jsonl", tmp_path / "all", tokenizer)["tokens_in"]
    assert near["dropped"]["near_duplicate_context"] > 0 and near["tokens"] == sum(lengths)
    assert near["tokens_in"] == near["tokens"] + sum(near["dropped_tokens"].values()) == everything


def test_runs_whose_answer_was_not_checked_do_not_count_in_the_pass_rate(tmp_path: Path, tokenizer: Tokenizer) -> None:
    task = {"repo": "o/t", "problem_statement": "Adding fails", "patch": "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y"}
    rows: list[dict[str, Any]] = [
        task | {"instance_id": f"o__t-{i}", "files_at_base_commit": {"a.py": "x\n" + "long " * 2000 * (i == 4)}}
        for i in range(5)
    ]
    verdicts: list[dict[str, Any]] = [{"resolved": True}, {"resolved": False}, {}, {}, {}]
    step = {"action": "ls", "observation": "a.py", "thought": "I look."}
    rows += [{"instance_id": f"o__t-{i}", "trajectory": [step]} | verdict for i, verdict in enumerate(verdicts)]
    hits = json.dumps([{"url": "u", "title": "T", "text": "Page."}])
    rows += [{"question": "Who?", "steps": [{"tool": "search", "input": "x", "output": hits}], "answer": "Bob"}]
    write(tmp_path / "runs.jsonl", *rows)
    settings = CompileSettings(budget_tokens=900, allow_empty_reasoning=True)
    summary = run(tmp_path / "runs.jsonl", tmp_path / "out", tokenizer, settings=settings)
    assert summary["dropped"] == {"over_budget": 1, "unresolved": 1}
    swe, search = summary["by_agent"]["swe"], summary["by_agent"]["search"]
    assert (swe["documents_out"], swe["unjudged"], swe["pass_rate"]) == (3, 3, 1 / 2)
    assert (search["documents_out"], search["unjudged"], search["pass_rate"]) == (1, 1, None)
    assert (swe["empty_reasoning"], search["empty_reasoning"]) == (0, 1), "documents without reasoning are counted"
    strict = run(
        tmp_path / "runs.jsonl", tmp_path / "strict", tokenizer, settings=replace(settings, require_verdict=True)
    )
    assert strict["dropped"] == {"no_verdict": 4, "unresolved": 1} and strict["documents_out"] == 1
    assert (strict["by_agent"]["swe"]["unjudged"], strict["by_agent"]["swe"]["pass_rate"]) == (3, 1 / 2)
    default = run(tmp_path / "runs.jsonl", tmp_path / "default", tokenizer, settings=CompileSettings(budget_tokens=900))
    assert default["dropped"] == {"empty_reasoning": 1, "over_budget": 1, "unresolved": 1}
    assert default["by_agent"]["search"]["empty_reasoning"] == 0


def test_the_report_of_a_harness_drops_the_runs_that_failed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    task = {"repo": "o/t", "problem_statement": "Adding fails", "patch": "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x\n+y"}
    step = {"action": "ls", "observation": "a.py", "thought": "I look."}
    ids = [f"o__t-{i}" for i in range(4)]
    rows: list[dict[str, Any]] = [task | {"instance_id": id_, "files_at_base_commit": {"a.py": "x"}} for id_ in ids]
    rows += [{"instance_id": id_, "trajectory": [step]} for id_ in ids]
    write(tmp_path / "in" / "runs.jsonl", *rows)
    write(tmp_path / "in" / "final_report.json", {"generated": ids[:3], "resolved": ids[:1]})
    summary = run(tmp_path / "in", tmp_path / "out", tokenizer)
    assert summary["dropped"] == {"unresolved": 2}
    assert (summary["documents_out"], summary["unjudged"], summary["pass_rate"]) == (2, 1, 1 / 3)
    assert any(entry["file"].endswith("final_report.json") for entry in summary["inputs"])


def test_the_folder_contains_readable_triples_and_a_manifest(
    tmp_path: Path, inputs: Path, tokenizer: Tokenizer
) -> None:
    summary = run(inputs, tmp_path / "out", tokenizer)
    names_found = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names_found == ["manifest.json", "quarantine.jsonl", "triples.jsonl"]
    (row,) = read_lines(tmp_path / "out" / "triples.jsonl")
    triple = Triple.from_dict(row, "triples.jsonl:1")
    assert json.loads(json.dumps(triple.to_dict())) == row
    assert triple.settings["seed"] == 0 and triple.settings["arm"] == "acc"
    assert triple.settings["notes"]["evidence_rule"] == "hits"
    assert summary["by_agent"]["search"]["evidence_rules"] == summary["evidence_rules"] == {"hits": 1}
    assert triple.provenance["line"] == 1 and len(triple.provenance["sha256"]) == 64
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest == summary
    assert manifest["tokens"] == triple.settings["tokens"] > manifest["supervised_tokens"] > 0
    assert manifest["by_agent"]["search"]["documents_out"] == 1
    assert manifest["tokenizer"]["sha256"] == tokenizer.sha256
    assert [Path(entry["file"]).name for entry in manifest["inputs"]] == ["a.jsonl", "cut.traj", "instances.jsonl"]


def test_the_same_input_gives_the_same_bytes_even_over_an_older_output(
    tmp_path: Path, inputs: Path, tokenizer: Tokenizer
) -> None:
    for out in ("one", "two", "two"):
        run(inputs, tmp_path / out, tokenizer)
    for name in ("triples.jsonl", "quarantine.jsonl", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_rows_of_another_agent_are_dropped_with_its_name(tmp_path: Path, inputs: Path, tokenizer: Tokenizer) -> None:
    summary = run(inputs, tmp_path / "out", tokenizer, agent="sql")
    assert summary["documents_out"] == 0 and summary["dropped"]["other_agent"] == 4
    refused = read_lines(tmp_path / "out" / "quarantine.jsonl")
    assert refused[0]["detail"] == "this is a search run, and --agent asks for sql runs"


def test_more_bad_rows_than_allowed_stop_the_run_and_leave_only_the_reasons(
    tmp_path: Path, inputs: Path, tokenizer: Tokenizer
) -> None:
    assert run(inputs, tmp_path / "out", tokenizer, max_bad_share=3 / 7)["documents_out"] == 1
    with pytest.raises(
        TooManyBadRows, match=r"3 of 7 rows .*the limit is 42\.0% \(--max-bad\)\. The first one: .*a\.jsonl:\d"
    ) as error:
        run(inputs, tmp_path / "other", tokenizer, max_bad_share=0.42)
    assert error.value.exit_code == 3
    assert str(error.value).endswith(f"All are in {tmp_path / 'other' / 'quarantine.jsonl'}")
    refused = (tmp_path / "out" / "quarantine.jsonl").read_bytes()
    with pytest.raises(TooManyBadRows, match=r"out\.failed/quarantine\.jsonl"):
        run(inputs, tmp_path / "out", tokenizer, max_bad_share=0.42)
    for folder in ("other", "out.failed"):
        assert [path.name for path in (tmp_path / folder).iterdir()] == ["quarantine.jsonl"]
        assert (tmp_path / folder / "quarantine.jsonl").read_bytes() == refused
    visible = (path.name for path in tmp_path.iterdir() if ".work-" not in path.name)
    assert sorted(visible) == ["in", "other", "out", "out.failed"]
    assert run(inputs, tmp_path / "other", tokenizer, max_bad_share=3 / 7)["documents_out"] == 1


def test_a_folder_that_is_not_our_output_is_not_replaced(tmp_path: Path, inputs: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text('{"format": "else"}')
    (tmp_path / "file").write_text("x")
    for name in ("mine", "file"):
        with pytest.raises(DataError, match="not the output of a compile"):
            run(inputs, tmp_path / name, tokenizer)
    assert (tmp_path / "mine" / "manifest.json").read_text() == '{"format": "else"}'
    run(inputs, tmp_path / "out", tokenizer)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"out also contains notes\.txt, which would be removed"):
        run(inputs, tmp_path / "out", tokenizer)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_an_output_inside_the_input_folder_is_not_read_again(
    tmp_path: Path, inputs: Path, tokenizer: Tokenizer
) -> None:
    first = run(inputs, inputs / "out", tokenizer)
    assert run(inputs, inputs / "out", tokenizer) == first


def test_inputs_without_any_run_and_unknown_agents_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    only = write(tmp_path / "instances.jsonl", {"instance_id": "o__t-1", "patch": "p"})
    with pytest.raises(DataError, match="contain no run"):
        run(only, tmp_path / "out", tokenizer)
    with pytest.raises(DataError, match=r"unknown agent 'web'(?s:.*)search: pages that the agent visited"):
        run(only, tmp_path / "out", tokenizer, agent="web")
    assert not (tmp_path / "out").exists()


def test_unreadable_resource_rows_are_reported_and_not_counted_as_documents(
    tmp_path: Path, inputs: Path, tokenizer: Tokenizer
) -> None:
    broken = write(tmp_path / "more.jsonl", b"{broken")
    summary = run(inputs, tmp_path / "out", tokenizer, resources=[broken])
    assert summary["documents_in"] == 7 and summary["resources"]["bad_rows"] == 1
    assert read_lines(tmp_path / "out" / "quarantine.jsonl")[0]["stage"] == "resource"


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data")
def test_the_real_runs_compile_and_every_row_is_accounted_for(tmp_path: Path, tokenizer: Tokenizer) -> None:
    summary = compile_inputs(
        [DATA / "search", DATA / "swe", DATA / "sql"],
        tmp_path / "out",
        agent="auto",
        resources=[],
        settings=CompileSettings(),
        tokenizer=tokenizer,
    )
    by_agent = {name: (c["documents_in"], c["documents_out"], c["dropped"]) for name, c in summary["by_agent"].items()}
    assert by_agent == {
        "search": (120, 108, {"wrong_answer": 12}),
        "sql": (192, 164, {"gold_mismatch": 1, "wrong_answer": 27}),
        "swe": (13, 9, {"no_instance_row": 4}),
    }
    assert summary["documents_in"] == summary["documents_out"] + sum(summary["dropped"].values()) == 325
    triples = [Triple.from_dict(row, "x") for row in read_lines(tmp_path / "out" / "triples.jsonl")]
    assert len({triple.id for triple in triples}) == len(triples) == 281
    assert sum(triple.settings["tokens"] for triple in triples) == summary["tokens"]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data")
def test_a_small_budget_drops_real_rows_with_the_numbers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    settings = CompileSettings(budget_tokens=2_000)
    summary = run(DATA / "sql", tmp_path / "out", tokenizer, settings=settings)
    assert summary["dropped"]["over_budget"] > 0
    for row in read_lines(tmp_path / "out" / "triples.jsonl"):
        assert len(render_turns(triple_turns(Triple.from_dict(row, "x")), tokenizer).ids) <= 2_000
