"""Conversions while other processes change the input, write the output, or kill the workers."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.common import folder_lock as folder_lock_module
from acc_megatron.data_tools.convert import convert as convert_module
from acc_megatron.data_tools.convert import shards as shards_module
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.merge import merge
from acc_megatron.data_tools.convert.shards import ShardTask
from acc_megatron.data_tools.convert.verify import verify
from acc_megatron.data_tools.sharding import worker_processes
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError, EnvironmentProblem

Writer = Callable[[Path, list[Any]], Path]
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def one_tokenizer(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> None:
    monkeypatch.setattr(shards_module, "load_tokenizer", lambda name: tokenizer)
    shards_module.tokenizer_on.cache_clear()


def test_an_input_that_changes_while_it_is_read_is_refused_and_its_shards_removed(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer, monkeypatch: pytest.MonkeyPatch, small_shards: None
) -> None:
    """With as many rows as before: the manifest's hash of the input would not be that of what was read."""
    source = write_rows(tmp_path / "triples.jsonl", triple_rows[:12])
    run = worker_processes.in_processes(1)

    def rewrite_between(tasks: Any, make: Any) -> Any:
        for number, counts in enumerate(run(tasks, make)):
            if number == 0:
                write_rows(source, triple_rows[12:24])
            yield counts

    with pytest.raises(DataError, match=r"triples\.jsonl changed while it was read: run again"):
        convert([source], tmp_path / "out", ConvertSettings(), runner=rewrite_between)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out.work-*/[0-9]*"))
    write_rows(source, triple_rows[:12])

    def touch(tasks: Any, make: Any) -> Any:
        os.utime(source, (1, 1))
        yield from run(tasks, make)

    assert convert([source], tmp_path / "out", ConvertSettings(), runner=touch)["documents_out"] == 12


def test_two_conversions_cannot_write_the_same_folder(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock_module, "_WAIT_SECONDS", 0.1)
    source = write_rows(tmp_path / "triples.jsonl", triple_rows[:3])
    out, run = tmp_path / "out", worker_processes.in_processes(1)

    def disturbed(tasks: Any, make: Any) -> Any:
        for settings in (ConvertSettings(), ConvertSettings(template="qwen3-thinking-2507")):
            with pytest.raises(DataError, match=r"another process is writing .*out"):
                convert([source], out, settings)
            with pytest.raises(DataError, match=r"another process is writing .*out"):
                convert_module.convert_part([source], out, settings, part=(0, 1))
        with pytest.raises(DataError, match=r"another process is still writing .*out"):
            merge(out)
        yield from run(tasks, make)

    assert convert([source], out, ConvertSettings(), runner=disturbed)["documents_out"] == 3
    assert verify(out) == [] and list(tmp_path.iterdir()) == [source, out]


def killed_in_the_second(task: ShardTask) -> Any:
    return os.kill(os.getpid(), signal.SIGKILL) if task.folder.name == "00001" else shards_module.make_shard(task)


def failing(task: ShardTask) -> Any:
    (task.folder.parents[1] / f"tried-{task.folder.name}").touch()
    raise DataError("no more")


def test_a_killed_worker_is_reported_and_the_first_error_ends_the_run(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_module, "ROWS_PER_SHARD", 1)
    source = write_rows(tmp_path / "triples.jsonl", triple_rows[:24])
    monkeypatch.setattr(convert_module, "make_shard", killed_in_the_second)
    with pytest.raises(
        EnvironmentProblem, match="a worker process was killed, most often because the machine ran out of memory"
    ):
        convert([source], tmp_path / "out", ConvertSettings(), num_workers=2)
    monkeypatch.setattr(convert_module, "make_shard", failing)
    with pytest.raises(DataError, match="no more"):
        convert([source], tmp_path / "out", ConvertSettings(), num_workers=2)
    assert len(list(tmp_path.glob("tried-*"))) <= 4, "two tasks for each worker are queued, and an error queues no more"
    monkeypatch.setattr(convert_module, "make_shard", shards_module.make_shard)
    assert convert([source], tmp_path / "out", ConvertSettings(), num_workers=2)["documents_out"] == 24


def test_a_dataset_inside_its_own_input_is_refused(tmp_path: Path, triple_rows: Rows, write_rows: Writer) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    source = write_rows(folder / "triples.jsonl", triple_rows[:1])
    for out in (folder / "data", folder / ".." / "in" / "data"):
        with pytest.raises(DataError, match="is inside the input folder"):
            convert([folder], out, ConvertSettings())
    assert list(folder.iterdir()) == [source]
    assert convert([source], folder / "data", ConvertSettings())["documents_out"] == 1, (
        "only a folder can contain the output"
    )


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_made(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer
) -> None:
    good, odd = (
        write_rows(tmp_path / os.fsdecode(name), triple_rows[:1]) for name in (b"triples.jsonl", b"\xff.jsonl")
    )
    for source, out in ((odd, tmp_path / "out"), (good, tmp_path / os.fsdecode(b"out\xff"))):
        with pytest.raises(DataError, match=r"\\udcff.* is not valid UTF-8"):
            convert([source], out, ConvertSettings())
    assert sorted(tmp_path.iterdir()) == sorted([good, odd])
