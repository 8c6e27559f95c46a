"""The command line: quick help, one clear line for each mistake, and real data in equal to data out plus drops."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import acc, good, run_command
from make_inputs import write_triples

from acc_megatron.data_tools.convert import ConvertSettings, convert


def refused(*arguments: str | Path, code: int = 2) -> str:
    """Run a command that must be refused; its one line on stderr."""
    done = acc(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_help_names_every_verb_in_the_order_of_the_road() -> None:
    text = acc("--help").stdout
    verbs = ["compile", "convert", "inspect", "verify", "report", "train", "import", "export", "eval", "quickstart"]
    places = [text.index(f"\n  {verb} ") for verb in verbs]
    assert places == sorted(places)
    assert "Exit codes" in text


def test_an_absent_input_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert refused("compile", absent, "--out", tmp_path / "out") == f"error: no input at {absent}"
    assert f"no input at {absent}" in refused("convert", absent, "--out", tmp_path / "out")
    assert "no config at" in refused("train", absent)
    assert "holds neither a dataset" in refused("report", tmp_path)
    assert "no config.json" in refused("import", tmp_path, "--out", tmp_path / "out")
    assert "no checkpoint at" in refused("export", tmp_path, "--out", tmp_path / "out")


def test_a_truncated_traj_and_invalid_utf8_cost_a_quarantine_line_each(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "cut.traj").write_text('{"trajectory": [{"action": "ls", "obs')
    (runs / "rows.jsonl").write_bytes(b'{"question": "caf\xe9"}\n')
    line = refused("compile", runs, "--out", tmp_path / "out", code=3)
    assert (
        "2 of 2 rows are unreadable" in line and "cut.traj:1: broken_json" in line and not (tmp_path / "out").exists()
    )
    done = acc("compile", runs, "--out", tmp_path / "out", "--max-bad", "1", "--json")
    assert done.returncode == 2 and "no document is left of 2" in done.stderr
    counts = json.loads(done.stdout)
    assert counts["documents_in"] == 2 and counts["documents_out"] == 0
    assert counts["dropped"] == {"broken_json": 1, "invalid_utf8": 1}
    rows = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    by_reason = {row["reason"]: row for row in rows}
    assert by_reason["broken_json"]["file"].endswith("cut.traj")
    assert by_reason["invalid_utf8"]["file"].endswith("rows.jsonl") and by_reason["invalid_utf8"]["line"] == 1


def test_a_row_without_an_answer_is_quarantined_by_its_line(tmp_path: Path) -> None:
    path = write_triples(tmp_path / "triples.jsonl", [20, 30, 40])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    del rows[1]["answer"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = refused("convert", path, "--out", tmp_path / "out", code=3)
    assert "1 of 3 rows could not be read" in line
    assert "triples.jsonl:2: 'answer' must be a string, got nothing" in line
    counts = good(acc("convert", path, "--out", tmp_path / "out", "--max-bad", "0.5", "--json"))
    assert (counts["documents_in"], counts["documents_out"], counts["dropped"]) == (3, 2, {"unknown_shape": 1})


def test_a_tokens_file_cut_in_half_is_refused_by_name_and_numbers(tmp_path: Path) -> None:
    convert([write_triples(tmp_path / "triples.jsonl", [50, 60])], tmp_path / "dataset", ConvertSettings())
    tokens = tmp_path / "dataset" / "shards" / "00000" / "tokens.bin"
    whole = tokens.read_bytes()
    tokens.write_bytes(whole[: len(whole) // 2])
    numbers = f"{len(whole) // 2} bytes, the manifest says {len(whole)}"
    assert numbers in refused("inspect", tmp_path / "dataset")
    done = acc("verify", tmp_path / "dataset")
    assert done.returncode == 1 and str(tokens) in done.stdout


def test_an_unknown_key_and_an_indivisible_layout_are_refused_before_any_process_group(recipe: Path) -> None:
    line = refused("train", recipe, "parallel.context_paralel=2")
    assert "unknown key parallel.context_paralel; did you mean parallel.context?" in line
    assert "tp 3 x cp 1 x pp 1 = 3 does not divide 1 ranks" in refused("train", recipe, "parallel.tensor=3")
    assert "train.global_batch_rows = 0 must be at least 1" in refused("train", recipe, "train.global_batch_rows=0")


@pytest.mark.data
def test_real_trajectories_balance_and_reach_the_counts_they_are_known_for(shared_data: Path, tmp_path: Path) -> None:
    good(acc("compile", shared_data, "--out", tmp_path / "triples", "--json"))
    manifest = json.loads((tmp_path / "triples" / "manifest.json").read_text())
    assert manifest["documents_in"] == manifest["documents_out"] + sum(manifest["dropped"].values())
    triples = [json.loads(line) for line in (tmp_path / "triples" / "triples.jsonl").read_text().splitlines()]
    agents = [triple["agent"] for triple in triples]
    assert len(triples) == manifest["documents_out"]
    assert agents.count("search") >= 100, "of 120 rows"
    assert agents.count("sql") >= 130
    swe = " ".join(triple["id"] for triple in triples if triple["agent"] == "swe")
    instances = json.loads((shared_data / "swe" / "instances_with_files.json").read_text())
    for instance in (row for row in instances if row["patch"]):
        assert instance["instance_id"] in swe, instance["instance_id"]
    counts = good(acc("convert", tmp_path / "triples", "--out", tmp_path / "dataset", "--workers", "2", "--json"))
    assert counts["documents_in"] == len(triples) == counts["documents_out"] + sum(counts["dropped"].values())
    assert acc("verify", tmp_path / "dataset").returncode == 0


def test_import_of_a_model_prints_one_json_object(make_hf_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_hf_folder(tmp_path / "hf", vocab_size=64)
    result = good(acc("import", folder, "--out", tmp_path / "out", "--json"))
    assert Path(result["checkpoint"]).is_dir() and result["parameters"] > 0


def test_what_the_file_system_refuses_is_one_line_with_what_to_do(tmp_path: Path) -> None:
    source = write_triples(tmp_path / "triples.jsonl", [900] * 8)
    inside_a_file = refused("convert", source, "--out", source / "out")
    assert inside_a_file.startswith(f"error: {source}") and "is a file, not a folder" in inside_a_file
    assert "name is too long" in refused("convert", source, "--out", tmp_path / ("x" * 300))
    command = f"ulimit -f 4; exec {sys.executable} -m acc_megatron convert {source} --out {tmp_path}/out"
    done = run_command(["bash", "-c", command])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "larger than the limit" in done.stderr.splitlines()[-1] and not (tmp_path / "out").exists()


def test_a_run_that_leaves_no_document_says_so_and_numbers_that_cannot_be_are_refused(tmp_path: Path) -> None:
    step = {"tool": "search", "input": "x", "output": '[{"url": "u", "title": "T", "text": "Some text."}]'}
    run = {"question": "Who?", "steps": [step], "answer": "Bob"}
    (tmp_path / "runs.jsonl").write_text(json.dumps(run) + "\n")
    out = tmp_path / "out"
    left = refused("compile", tmp_path / "runs.jsonl", "--out", out, "--budget-tokens", "5")
    assert left == f"error: no document is left of 1; {out}/quarantine.jsonl says why of each"
    assert json.loads((out / "quarantine.jsonl").read_text())["reason"] == "over_budget"
    for option, value in (("--budget-tokens", "-4"), ("--max-bad", "7")):
        assert f"'{option}'" in refused("compile", tmp_path, "--out", out, option, value)
    assert "'--workers'" in refused("convert", tmp_path, "--out", out, "--workers", "0")


def test_a_part_and_a_cluster_at_once_are_refused(tmp_path: Path) -> None:
    done = acc("convert", tmp_path, "--out", tmp_path / "out", "--shard", "0/2", "--ray", "local")
    assert done.returncode == 2 and "give one of them" in done.stderr
