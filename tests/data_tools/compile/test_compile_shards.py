"""A compile in shards has the same bytes for any number of workers and jobs, and after a kill."""

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from acc_megatron.cli.convert import verbs as merge_verbs
from acc_megatron.common import folder_lock as folder_lock_module
from acc_megatron.data_tools.compile import compile as compile_module
from acc_megatron.data_tools.compile.compile import compile_inputs, compile_part, prepare
from acc_megatron.data_tools.compile.merge import is_compile, merge
from acc_megatron.data_tools.compile.near_duplicates import NearSettings
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError

FILLED = CompileSettings(fill_tokens={"search": (600, 900)})
WORDS = "river stone maple copper lantern harbour violet ember walnut prairie".split()


def run_row(number: int) -> dict[str, Any]:
    """A search run; every seventh repeats an earlier one, and every eleventh is nearly an earlier one."""
    number = number - 6 if number % 7 == 6 else number
    subject = number - 10 if number % 11 == 10 else number
    question = f"Which town did explorer {subject} of the {WORDS[subject % 10]} company found in the year {subject}?"
    text = f"{WORDS[number % 10]} " * 40 + f"town {number:03}"
    page = {"url": f"https://e.org/{number}", "title": f"page {number}", "text": text}
    steps = [{"tool": "visit", "input": {"url": page["url"]}, "output": [page], "thought": "I read it."}]
    return {"question": question, "steps": steps, "answer": f"town {number:03}", "n": number}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON lines with broken and unknown rows, compressed lines, Parquet, a document and a sidecar."""
    folder = tmp_path_factory.mktemp("inputs")
    lines = [json.dumps(run_row(number)) for number in range(40)]
    lines[5:5] = ["{broken", "", json.dumps({"unknown": 1})]
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n")
    with pa.CompressedOutputStream(str(folder / "b.jsonl.gz"), "gzip") as file:
        file.write("".join(json.dumps(run_row(number)) + "\n" for number in range(30, 60)).encode())
    pq.write_table(pa.Table.from_pylist([run_row(number) for number in range(60, 80)]), folder / "c.parquet")
    (folder / "d.json").write_text(json.dumps([run_row(number) for number in range(80, 84)]))
    (folder / "metadata.json").write_text(json.dumps({"date": "today"}))
    return folder


def run(inputs: Path, out: Path, tokenizer: Tokenizer, **options: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"agent": "auto", "resources": [], "settings": FILLED, "tokenizer": tokenizer}
    return compile_inputs([inputs], out, max_bad_share=0.5, **(defaults | options))


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_module, "ROWS_PER_SHARD", 8)


@pytest.mark.parametrize(
    "near",
    [
        pytest.param(NearSettings(), id=""),
        pytest.param(NearSettings(questions=0.8, contexts=0.95), id="near", marks=pytest.mark.slow),
    ],
)
def test_the_bytes_do_not_depend_on_shards_workers_or_jobs(
    tmp_path: Path, inputs: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, near: NearSettings
) -> None:
    if near.is_on:
        pytest.importorskip("datasketch")
    summary = run(inputs, tmp_path / "whole", tokenizer, near=near, with_messages=True)
    reason = "near_duplicate_question" if near.is_on else "duplicate_id"
    assert summary["dropped"][reason] >= 10 and summary["filled_tokens"] > 0
    assert [Path(name).name for name in summary["ignored_files"]] == ["metadata.json"]
    monkeypatch.setattr(compile_module, "ROWS_PER_SHARD", 7)
    run(inputs, tmp_path / "two", tokenizer, near=near, with_messages=True, num_workers=2)
    for index in (2, 0, 1):
        plan = prepare(
            [inputs],
            tmp_path / "jobs",
            agent="auto",
            resources=[],
            settings=FILLED,
            tokenizer=tokenizer,
            near=near,
            with_messages=True,
        )
        if index == 1:
            with pytest.raises(DataError, match=r"shards of .*jobs are missing: 1, 4, "):
                merge(tmp_path / "jobs", max_bad_share=0.5)
        compile_part(plan, (index, 3))
    merged = CliRunner().invoke(merge_verbs, ["merge", str(tmp_path / "jobs"), "--max-bad", "0.5", "--json"])
    assert json.loads(merged.stdout)["documents_out"] == summary["documents_out"], merged.output
    assert hashes(tmp_path / "two") == hashes(tmp_path / "whole") == hashes(tmp_path / "jobs")
    assert not list(tmp_path.glob(".*")), "no work folder is left"
    assert is_compile(tmp_path / "jobs") and merge(tmp_path / "jobs")["documents_out"] == summary["documents_out"]


def test_a_killed_compile_repeats_no_finished_shard_and_writes_the_same_bytes(
    tmp_path: Path, inputs: Path, tokenizer: Tokenizer, small_shards: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run(inputs, tmp_path / "whole", tokenizer)
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from acc_megatron.data_tools.compile import compile as module\n"
        "from acc_megatron.data_tools.compile.settings import CompileSettings\n"
        "from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer\n"
        "real = module.ShardMaker.__call__\n"
        "def call(maker, task):\n"
        "    if task.folder.name == '00004':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(maker, task)\n"
        "module.ShardMaker.__call__ = call\n"
        "module.ROWS_PER_SHARD = 8\n"
        "settings = CompileSettings(fill_tokens={'search': (600, 900)})\n"
        "module.compile_inputs([Path(sys.argv[1])], Path(sys.argv[2]), agent='auto', resources=[], settings=settings,\n"
        "    tokenizer=load_tokenizer(), max_bad_share=0.5)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, inputs, tmp_path / "out"], capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "out").exists()
    (work,) = tmp_path.glob(".out.work-*")
    assert sorted(path.name for path in work.glob("0*")) == ["00000", "00001", "00002", "00003"]
    capsys.readouterr()
    run(inputs, tmp_path / "out", tokenizer)
    assert "compile: 4 of 15 shards already exist" in capsys.readouterr().err
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_a_finished_shard_of_other_settings_or_inputs_is_never_used(
    tmp_path: Path, tokenizer: Tokenizer, small_shards: None
) -> None:
    source = tmp_path / "runs.jsonl"
    source.write_text("".join(json.dumps(run_row(number)) + "\n" for number in range(10)) + "{broken\n")
    for seed in (0, 1):
        plan = prepare(
            [source],
            tmp_path / "out",
            agent="auto",
            resources=[],
            settings=CompileSettings(seed=seed),
            tokenizer=tokenizer,
        )
        compile_part(plan, (0, 2))
        assert len(list(tmp_path.glob(".out.work-*"))) == 1
    source.write_text("".join(json.dumps(run_row(number)) + "\n" for number in range(20, 30)))
    settings = CompileSettings(seed=1)
    run(source, tmp_path / "out", tokenizer, settings=settings)
    run(source, tmp_path / "other", tokenizer, settings=settings)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "other")


def test_an_input_that_changes_while_it_is_compiled_is_refused_and_its_shards_removed(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, small_shards: None
) -> None:
    source = tmp_path / "runs.jsonl"
    source.write_text("".join(json.dumps(run_row(number)) + "\n" for number in range(10)))
    real = compile_module.ShardMaker.__call__

    def rewriting(maker: Any, task: Any) -> Any:
        counts = real(maker, task)
        source.write_text("".join(json.dumps(run_row(number)) + "\n" for number in range(10, 20)))
        return counts

    monkeypatch.setattr(compile_module.ShardMaker, "__call__", rewriting)
    with pytest.raises(DataError, match=r"runs\.jsonl changed while it was read: run again"):
        run(source, tmp_path / "out", tokenizer)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out.work-*/0*"))


def test_two_compiles_cannot_write_the_same_folder(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock_module, "_WAIT_SECONDS", 0.1)
    source = tmp_path / "runs.jsonl"
    source.write_text(json.dumps(run_row(0)) + "\n")
    real: Callable[..., Any] = compile_module.ShardMaker.__call__

    def disturbed(maker: Any, task: Any) -> Any:
        for settings in (FILLED, CompileSettings(seed=1)):
            with pytest.raises(DataError, match=r"another process is writing .*out"):
                run(source, tmp_path / "out", tokenizer, settings=settings)
        with pytest.raises(DataError, match=r"another process is still writing .*out"):
            merge(tmp_path / "out")
        return real(maker, task)

    monkeypatch.setattr(compile_module.ShardMaker, "__call__", disturbed)
    assert run(source, tmp_path / "out", tokenizer)["documents_out"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs.jsonl"]


def test_a_damaged_parquet_file_ends_with_one_bad_row_for_any_size_of_shards(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.parquet"
    table = pa.Table.from_pylist([run_row(number) for number in range(30)])
    pq.write_table(table, path, row_group_size=10, write_page_checksum=True, use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 5] ^= 0xFF
    path.write_bytes(data)
    found = []
    for size in (512, 4):
        monkeypatch.setattr(compile_module, "ROWS_PER_SHARD", size)
        summary = run(path, tmp_path / str(size), tokenizer, settings=CompileSettings())
        found.append(hashes(tmp_path / str(size)))
        assert summary["dropped"]["damaged_parquet"] == 1 and summary["documents_in"] == 11
    assert found[0] == found[1]
