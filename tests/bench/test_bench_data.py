"""`bench data`: equal work is compared, complete programs are measured, and rows name machine and versions."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import acc, good

from acc_megatron.bench import data as bench
from acc_megatron.bench.csv_file import append_csv
from acc_megatron.bench.data_programs import BARE, COMPILE, MEGATRON, OURS, DataPrograms
from acc_megatron.bench.generated_documents import write_triples
from acc_megatron.bench.program_usage import Usage, run_program
from acc_megatron.cli.bench import _real_trajectories
from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer
from acc_megatron.errors import DataError, EnvironmentProblem


def test_generated_triples_are_reproducible_and_have_the_requested_size(tmp_path: Path) -> None:
    tokenizer = load_tokenizer()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        count = write_triples(tmp_path / name, tokenizer, 200_000, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c and 200_000 <= len(a) < 300_000
    rows = [json.loads(line) for line in a.splitlines()]
    assert len(rows) == count and {row["agent"] for row in rows} == {"search", "swe", "sql"}
    text = rows[0]["context"][0]["text"]
    assert 3 < len(text) / tokenizer.count(text) < 6, "characters per token, as in prose"


def test_the_usage_of_a_program_includes_its_child_processes() -> None:
    spin = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {spin!r} + 'x = b\"1\" * 200_000_000'])"
    usage = run_program(["-c", child])
    assert usage.cpu_seconds >= 0.3 and usage.wall_seconds >= 0.3
    assert 190 < usage.peak_mb < 400


def test_a_failed_program_is_an_error_with_the_end_of_its_stderr() -> None:
    with pytest.raises(EnvironmentProblem, match=r"(?s)python -c .*ended with exit code 3.*last words"):
        run_program(["-c", "import sys; print('last words', file=sys.stderr); sys.exit(3)"])


def test_rows_are_appended_with_machine_and_versions(tmp_path: Path) -> None:
    for value in (1, 2):
        append_csv(tmp_path / "new" / "data.csv", [{"provider": "p", "cpu_seconds": value}], gpu="H100")
    with (tmp_path / "new" / "data.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["cpu_seconds"] for row in rows] == ["1", "2"]
    assert f"python={sys.version.split()[0]}" in rows[0]["versions"] and rows[0]["machine"].endswith(", H100")


def test_a_file_with_other_columns_stays_as_it_is_and_the_rows_are_not_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("provider,seconds\np,1\n")
    for _ in range(2):
        assert append_csv(path, [{"provider": "p", "cpu_seconds": 1}]) == tmp_path / "data_2.csv"
    assert path.read_text() == "provider,seconds\np,1\n"
    assert f"{path} has other columns, so the rows are in {tmp_path / 'data_2.csv'}" in capsys.readouterr().err
    assert (tmp_path / "data_2.csv").read_text().count("\n") == 3


def test_a_program_that_fails_is_a_row_and_the_others_are_measured(tmp_path: Path, monkeypatch: Any) -> None:
    def run(arguments: list[str]) -> Usage:
        if "acc_megatron.bench.megatron_preprocessing" in arguments:
            raise EnvironmentProblem("python -m x ended with exit code -9:\nkilled")
        return Usage(2.0, 3.0, 100.0)

    monkeypatch.setattr("acc_megatron.bench.data_programs.run_program", run)
    told: list[str] = []
    programs = DataPrograms(tmp_path, "auto", told.append)
    (tmp_path / "triples.jsonl").write_text("")
    found = bench._compare(programs, tmp_path / "triples.jsonl", 1, 2, 1)
    assert found["cpu_seconds_ratio_vs_megatron"] is None and found["rate_vs_bare_tokenizer"] == 1.0
    failed = [row for row in programs.rows if row["provider"] == MEGATRON]
    assert [row["status"] for row in failed] == ["failed: python -m x ended with exit code -9: killed"] * 2
    assert failed[0]["cpu_seconds"] is None and {*failed[0]} == {*programs.rows[0]}
    assert sum("killed" in line for line in told) == 2


@pytest.mark.slow
def test_convert_and_megatron_write_the_same_tokens_and_all_figures_are_printed(tmp_path: Path) -> None:
    arguments = ("--megabytes", "0.3", "--rounds", "1", "--workers", "1", "--curve", "1", "--csv", tmp_path / "d.csv")
    arguments += ("--real", tmp_path / "none")
    figures = good(acc("bench", "data", *arguments, "--json"))
    assert figures["cpu_seconds_ratio_vs_megatron"] > 0 and figures["rate_vs_bare_tokenizer"] > 0
    assert 50 < figures["peak_memory_mb"] < 600 and 50 < figures["compile_peak_memory_mb_by_input_mb"]["1"] < 600
    assert figures["speedup_1_to_2_workers"] > 0 and "real" not in figures
    with (tmp_path / "d.csv").open() as file:
        providers = {row["provider"] for row in csv.DictReader(file)}
    assert providers == {OURS, BARE, MEGATRON, COMPILE}


def test_a_missing_folder_of_real_trajectories_is_skipped_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _real_trajectories("") is None and capsys.readouterr().err == ""
    assert _real_trajectories(str(tmp_path / "none")) is None
    expected = f"--real: {tmp_path / 'none'} does not exist, so no real trajectories are measured\n"
    assert capsys.readouterr().err == expected
    assert _real_trajectories(str(tmp_path)) == tmp_path


def test_different_tokens_are_an_error(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(dataset)
    tokens = bench.open_dataset(dataset)
    documents = [np.array(tokens.document(number)[0]) for number in range(len(tokens))]
    bench.write_indexed(tmp_path / "megatron", documents, np.int32)
    assert bench._count_equal_tokens(tmp_path) == sum(map(len, documents))
    documents[2][5] += 1
    bench.write_indexed(tmp_path / "megatron", documents, np.int32)
    with pytest.raises(DataError, match="different tokens"):
        bench._count_equal_tokens(tmp_path)


def test_the_peak_of_a_small_program_excludes_the_memory_of_the_measuring_process() -> None:
    ballast = b"1" * 500_000_000
    assert run_program(["-c", "pass"]).peak_mb < 100
    assert len(ballast) == 500_000_000
