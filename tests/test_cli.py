"""The command line: help, one clear line for each error, and rows in equal to rows out plus drops on real data."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from support.commands import acc, good, run_command
from support.make_inputs import write_triples

from acc_megatron import __version__
from acc_megatron.cli import main
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert


def run_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which has imported its packages already."""
    out, err, words = io.StringIO(), io.StringIO(), ["acc-megatron", *map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert code is None or isinstance(code, int)
    return subprocess.CompletedProcess(words, code or 0, out.getvalue(), err.getvalue())


def refused(*arguments: str | Path, code: int = 2) -> str:
    """Run a command that must be refused; the last line of its stderr."""
    done = run_here(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_help_lists_every_verb_in_the_order_of_the_pipeline() -> None:
    text = run_here("--help").stdout
    verbs = [
        "compile",
        "convert",
        "inspect",
        "verify",
        "report",
        "config",
        "train",
        "import",
        "export",
        "eval",
        "quickstart",
    ]
    places = [text.index(f"\n  {verb} ") for verb in verbs]
    assert places == sorted(places)
    assert "Exit codes" in text


def test_version_and_short_options_exist() -> None:
    assert run_here("--version").stdout == f"acc-megatron {__version__}\n"
    assert run_here("convert", "-h").stdout == run_here("convert", "--help").stdout
    assert "-o" in run_here("convert", "-h").stdout


def test_config_explains_a_setting_by_another_trainers_name_for_it() -> None:
    lines = run_here("config", "lr").stdout.splitlines()
    assert lines[0] == "[optimizer]" and lines[2].startswith("  learning_rate = required")
    (found,) = json.loads(run_here("config", "batch", "size", "--json").stdout)
    assert found["key"] == "train.global_batch_rows"
    assert "no setting matches 'xyzzy'" in refused("config", "xyzzy")


def test_an_unknown_key_of_another_trainer_gets_the_key_of_the_right_section(recipe: Path) -> None:
    assert "unknown key train.lr; did you mean optimizer.learning_rate?" in refused("train", recipe, "train.lr=1e-5")
    line = refused("train", recipe, "optimizer.gradient_checkpointing=true")
    assert "did you mean memory.recompute?" in line


def test_a_name_on_the_hub_and_a_training_run_are_refused_with_the_command_that_comes_first(tmp_path: Path) -> None:
    line = refused("import", "Qwen/Qwen3-0.6B", "--out", tmp_path / "checkpoint")
    assert "hf download Qwen/Qwen3-0.6B --local-dir FOLDER" in line
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    line = refused("eval", tmp_path / "run", "--out", tmp_path / "scores")
    assert "run 'acc-megatron export RUN --out FOLDER' first" in line


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert refused("compile", absent, "--out", tmp_path / "out") == f"error: no input at {absent}"
    assert f"no input at {absent}" in refused("convert", absent, "--out", tmp_path / "out")
    assert "no config file at" in refused("train", absent)
    assert "contains neither a dataset" in refused("report", tmp_path)
    assert "no config.json" in refused("import", tmp_path, "--out", tmp_path / "out")
    assert "no checkpoint at" in refused("export", tmp_path, "--out", tmp_path / "out")


def test_a_truncated_traj_and_invalid_utf8_are_quarantined_one_line_each(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "cut.traj").write_text('{"trajectory": [{"action": "ls", "obs')
    (runs / "rows.jsonl").write_bytes(b'{"question": "caf\xe9"}\n')
    line = refused("compile", runs, "--out", tmp_path / "out", code=3)
    assert "2 of 2 rows are unreadable" in line and "cut.traj:1: broken_json" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["quarantine.jsonl"]
    done = run_here("compile", runs, "--out", tmp_path / "out", "--max-bad", "1", "--json")
    assert done.returncode == 2 and "all 2 documents were dropped" in done.stderr
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
    counts = good(run_here("convert", path, "--out", tmp_path / "out", "--max-bad", "0.5", "--json"))
    assert (counts["documents_in"], counts["documents_out"], counts["dropped"]) == (3, 2, {"unknown_shape": 1})


def test_a_tokens_file_cut_in_half_is_refused_by_name_and_numbers(tmp_path: Path) -> None:
    convert([write_triples(tmp_path / "triples.jsonl", [50, 60])], tmp_path / "dataset", ConvertSettings())
    tokens = tmp_path / "dataset" / "shards" / "00000" / "tokens.bin"
    whole = tokens.read_bytes()
    tokens.write_bytes(whole[: len(whole) // 2])
    numbers = f"{len(whole) // 2} bytes, the manifest says {len(whole)}"
    assert numbers in refused("inspect", tmp_path / "dataset")
    done = run_here("verify", tmp_path / "dataset")
    assert done.returncode == 1 and str(tokens) in done.stdout


def test_an_unknown_key_and_an_indivisible_layout_are_refused_before_any_process_group(recipe: Path) -> None:
    line = refused("train", recipe, "parallel.context_paralel=2")
    assert "unknown key parallel.context_paralel; did you mean parallel.context?" in line
    last = refused("train", recipe, "parallel.tensor=3")
    assert last == f"  torchrun --nproc-per-node 3 -m acc_megatron train {recipe} parallel.tensor=3"
    assert "train.global_batch_rows = 0 must be at least 1" in refused("train", recipe, "train.global_batch_rows=0")


@pytest.mark.data
def test_real_trajectories_are_triples_plus_drops_in_known_numbers(shared_data: Path, tmp_path: Path) -> None:
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


def test_an_error_of_the_file_system_is_one_line_with_advice(tmp_path: Path) -> None:
    source = write_triples(tmp_path / "triples.jsonl", [900] * 8)
    inside_a_file = refused("convert", source, "--out", source / "out")
    assert inside_a_file.startswith(f"error: {source}") and "is a file, not a folder" in inside_a_file
    assert "name is too long" in refused("convert", source, "--out", tmp_path / ("x" * 300))
    # -B: with this limit, Python would leave truncated bytecode in the source tree
    command = f"ulimit -f 4; exec {sys.executable} -B -m acc_megatron convert {source} --out {tmp_path}/out"
    done = run_command(["bash", "-c", command])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "larger than the limit" in done.stderr.splitlines()[-1] and not (tmp_path / "out").exists()


def test_a_run_without_documents_and_invalid_numbers_are_refused(tmp_path: Path) -> None:
    step = {
        "tool": "search",
        "input": "x",
        "output": '[{"url": "u", "title": "T", "text": "Some text."}]',
        "thought": "I look.",
    }
    run = {"question": "Who?", "steps": [step], "answer": "Bob"}
    (tmp_path / "runs.jsonl").write_text(json.dumps(run) + "\n")
    out = tmp_path / "out"
    left = refused("compile", tmp_path / "runs.jsonl", "--out", out, "--budget-tokens", "5")
    assert left == f"error: all 1 documents were dropped; {out}/quarantine.jsonl has the reasons"
    assert json.loads((out / "quarantine.jsonl").read_text())["reason"] == "over_budget"
    for option, value in (("--budget-tokens", "-4"), ("--max-bad", "7")):
        assert f"'{option}'" in refused("compile", tmp_path, "--out", out, option, value)
    assert "'--workers'" in refused("convert", tmp_path, "--out", out, "--workers", "0")


def test_shard_and_ray_together_are_refused(tmp_path: Path) -> None:
    done = run_here("convert", tmp_path, "--out", tmp_path / "out", "--shard", "0/2", "--ray", "local")
    assert done.returncode == 2 and "give only one of them" in done.stderr
