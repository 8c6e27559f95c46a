"""The same input gives the same bytes, even after kills, and every row is accounted for."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acc_megatron.common.atomic_files import write_json
from acc_megatron.data_tools.compile.output import FORMAT
from acc_megatron.data_tools.convert import convert as convert_module
from acc_megatron.data_tools.convert import shards as shards_module
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.verify import verify
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import ConfigError, DataError, TooManyBadRows

Writer = Callable[[Path, list[Any]], Path]
Rows = list[dict[str, Any]]
RUN = """
import sys
from pathlib import Path
from acc_megatron.data_tools.convert import convert
convert.ROWS_PER_SHARD = 8
convert.convert([Path(sys.argv[1])], Path(sys.argv[2]), convert.ConvertSettings(), num_workers=int(sys.argv[3]))
"""


@pytest.fixture(autouse=True)
def one_tokenizer(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> None:
    """Loaded once: loading it for each conversion would take most of the time of this file."""
    monkeypatch.setattr(shards_module, "load_tokenizer", lambda name: tokenizer)
    shards_module.tokenizer_on.cache_clear()


def hashes(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_the_bytes_do_not_depend_on_the_number_of_workers(mixed_input: Path, dataset: Path, tmp_path: Path) -> None:
    """D2: with 1, 2 and 8 workers."""
    expected = hashes(dataset)
    assert len(expected) == 8 * 4 + 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert_module, "ROWS_PER_SHARD", 8)
        for num_workers in (1, 2, 8):
            out = tmp_path / f"{num_workers}"
            settings = ConvertSettings(max_tokens=900)
            convert([mixed_input], out, settings, num_workers=num_workers, max_bad_share=0.1)
            assert hashes(out) == expected, num_workers


def finished_shards(folder: Path) -> dict[str, int]:
    """The inode of every published shard's tokens, by shard number."""
    return {file.parent.name: file.stat().st_ino for file in folder.glob(".out.work-*/[0-9]*/tokens.bin")}


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < end:
        time.sleep(0.001)
    return held


@pytest.mark.slow
def test_a_killed_conversion_continues_to_the_same_bytes(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer, small_shards: None
) -> None:
    rows = [row | {"id": f"{row['id']}-{i}", "question": f"{i} " * 4_000} for i in range(3) for row in triple_rows]
    source = write_rows(tmp_path / "triples.jsonl", rows)
    whole, broken = tmp_path / "whole" / "out", tmp_path / "broken" / "out"
    run = [sys.executable, "-c", RUN, str(source)]
    convert([source], whole, ConvertSettings())
    generator, done = random.Random(7), 0
    for kill, num_workers in enumerate("121"):
        process = subprocess.Popen([*run, str(broken), num_workers], stderr=subprocess.DEVNULL)
        target = done + generator.randint(1, 4)
        assert wait_for(lambda target=target: len(finished_shards(broken.parent)) >= target, 20)  # type: ignore[misc]
        time.sleep(generator.random() * 0.03)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was to be killed while it ran"
        ended = wait_for(lambda workers=workers: not any(map(is_running, workers)), 10)  # type: ignore[misc]
        for worker in filter(is_running, workers):
            os.kill(int(worker), signal.SIGKILL)
        assert ended, "workers outlive a killed run"
        assert not broken.exists(), "nothing is published before the end"
        done = len(finished_shards(broken.parent))
        assert 0 < done < 24, f"kill {kill} was to fall among the shards"
    kept = finished_shards(broken.parent)
    last = subprocess.run([*run, str(broken), "1"], check=True, capture_output=True, text=True)
    assert f"{done} of 24 shards already exist" in last.stderr
    # the dataset's files are those very files: a shard made again would have another inode
    assert {n: (broken / "shards" / n / "tokens.bin").stat().st_ino for n in kept} == kept
    assert hashes(broken) == hashes(whole) and verify(broken) == []
    assert list(broken.parent.iterdir()) == [broken], "no work folder is left"


def is_running(process_id: str) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.long
@pytest.mark.slow
def test_twenty_sigkills_end_in_the_same_bytes(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D1: SIGKILL at 20 random times while 2,000 documents are converted; finished shards are never made again."""
    rows = [triple_rows[i % 64] | {"id": f"doc-{i}"} for i in range(2_000)]
    monkeypatch.setattr(convert_module, "ROWS_PER_SHARD", 20)
    source = write_rows(tmp_path / "triples.jsonl", rows)
    whole, broken = tmp_path / "whole" / "out", tmp_path / "broken" / "out"
    convert([source], whole, ConvertSettings())
    generator, kept = random.Random(11), dict[str, int]()
    for kill in range(20):
        process_id = os.fork()  # a conversion of its own, without the second that a new interpreter takes to start
        if not process_id:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            with suppress(BaseException):
                convert([source], broken, ConvertSettings(), num_workers=1)
            os._exit(0)
        goal = len(kept) + generator.randint(1, 3)
        reached = wait_for(lambda goal=goal: len(finished_shards(broken.parent)) >= goal, 60)  # type: ignore[misc]
        time.sleep(generator.random() * 0.01)
        os.kill(process_id, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]) == -signal.SIGKILL, "it was to be killed"
        assert reached and not broken.exists()
        now = finished_shards(broken.parent)
        assert kept.items() <= now.items() and len(now) > len(kept), f"kill {kill}: a finished shard was made again"
        kept = now
    assert len(kept) < 100, "the last run was to have work left"
    convert([source], broken, ConvertSettings())
    assert {n: (broken / "shards" / n / "tokens.bin").stat().st_ino for n in kept} == kept
    assert hashes(broken) == hashes(whole) and list(broken.parent.iterdir()) == [broken]


class PowerCut(BaseException):
    """Raised in place of a system call that a real kill could interrupt."""


def test_out_is_never_half_written(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer, monkeypatch: pytest.MonkeyPatch, small_shards: None
) -> None:
    """D3: a power cut before any fsync or rename."""
    source = write_rows(tmp_path / "triples.jsonl", triple_rows[:12])
    calls, cut_at = 0, 1 << 30
    real_replace, renamed = Path.replace, list[Path]()

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls > cut_at:  # from then on nothing works: also what the clean-up would publish
            raise PowerCut

    monkeypatch.setattr(os, "fsync", lambda descriptor: count())

    def replace(self: Path, target: Path) -> Path:
        count()
        renamed.append(target)
        return real_replace(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    convert([source], tmp_path / "whole", ConvertSettings())
    assert renamed[-1] == tmp_path / "whole", "the last rename publishes it"
    expected, total = hashes(tmp_path / "whole"), calls
    assert total > 20
    out = tmp_path / "out"
    for cut in range(total):
        calls, cut_at = 0, cut
        with pytest.raises(PowerCut):
            convert([source], out, ConvertSettings())
        if out.exists():
            assert cut == total - 1 and verify(out) == [], "only the last fsync comes after the name"
        calls, cut_at = 0, 1 << 30
        convert([source], out, ConvertSettings())
        assert hashes(out) == expected
        for path in (out, *tmp_path.glob(".out.*")):
            path.rename(tmp_path / f"gone-{cut}-{path.name}")


def test_published_rows_convert_as_they_are(tmp_path: Path, write_rows: Writer, tokenizer: Tokenizer) -> None:
    rows = [
        {
            "dialogs": [
                {"role": "user", "content": f"Context <think>\n\n{i} naïve 世界\n\nQuestion: who?\n"},
                {"role": "assistant", "content": f"<think>\nStep {i}.\n\n</think>\n\nBob {i}.\n"},
            ],
            "ground_truth_answer": f"Bob {i}",
            "context_length": "100k",
        }
        for i in range(5)
    ]
    source = write_rows(tmp_path / "search_agent_data.jsonl", rows)
    convert([source], tmp_path / "out", ConvertSettings())
    opened = open_dataset(tmp_path / "out")
    assert len(opened) == 5
    for i, sample in enumerate(opened.samples.to_pylist()):
        ids, mask = opened.document(i)
        user = f"<|im_start|>user\nContext <think>\n\n{i} naïve 世界\n\nQuestion: who?\n<|im_end|>\n"
        target = f"<think>\nStep {i}.\n</think>\n\nBob {i}.\n<|im_end|>"
        assert tokenizer.decode(ids) == f"{user}<|im_start|>assistant\n{target}\n"
        assert tokenizer.decode(ids[mask == 1]) == target
        assert sample["agent"] == "search" and sample["id"] == f"search_agent_data-{i + 1:06d}"
        assert json.loads(sample["extra"]) == {"ground_truth_answer": f"Bob {i}", "context_length": "100k"}


def test_the_counts_add_up_and_every_drop_has_a_place_and_a_reason(
    dataset: Path, mixed_input: Path, triple_rows: Rows
) -> None:
    """D6: documents and tokens, by reason."""
    opened = open_dataset(dataset)
    manifest = opened.manifest
    assert (manifest["documents_in"], manifest["documents_out"]) == (68, 64)
    reasons = {"broken_json": 1, "control_string_in_target": 1, "over_max_tokens": 1, "unknown_shape": 1}
    assert manifest["dropped"] == reasons
    refused = [json.loads(line) for line in (dataset / "quarantine.jsonl").read_text().splitlines()]
    starts = np.cumsum([0, *map(len, mixed_input.read_bytes().splitlines(keepends=True))])
    assert [(row["file"], row["line"], row["stage"], row["reason"]) for row in refused] == [
        ("triples.jsonl", 65, "read", "broken_json"),
        ("triples.jsonl", 66, "read", "unknown_shape"),
        ("triples.jsonl", 67, "render", "control_string_in_target"),
        ("triples.jsonl", 68, "render", "over_max_tokens"),
    ]
    assert [row["byte_offset"] for row in refused] == starts[64:68].tolist()
    assert refused[1]["detail"].startswith("triples.jsonl:66: unknown shape with keys shape")
    numbers = [int(word) for word in refused[3]["detail"].replace(",", "").split() if word.isdigit()]
    assert numbers[1] == 900 and 1_000 < numbers[0] < 1_400, "the long row's length, then the limit"
    assert manifest["dropped_tokens"] == {"over_max_tokens": numbers[0]}, "the others were never tokenized"
    assert manifest["tokens_in"] == manifest["tokens"] + numbers[0]
    documents = [opened.document(i) for i in range(64)]
    assert manifest["tokens"] == sum(len(ids) for ids, _ in documents)
    assert manifest["supervised_tokens"] == sum(int(mask.sum()) for _, mask in documents)
    assert all(mask.any() for _, mask in documents)
    assert sum(agent["documents"] for agent in manifest["agents"].values()) == 64
    assert manifest["agents"]["swe"]["tokens"] == sum(len(ids) for ids, _ in documents[1::3])
    assert opened.samples["id"].to_pylist() == [row["id"] for row in triple_rows]


def test_a_document_with_one_token_over_max_tokens_is_dropped(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer
) -> None:
    source = write_rows(tmp_path / "triples.jsonl", triple_rows[:1])
    length = convert([source], tmp_path / "a", ConvertSettings())["tokens"]
    assert convert([source], tmp_path / "b", ConvertSettings(max_tokens=length))["documents_out"] == 1
    with pytest.raises(DataError, match=r"no document is left: 1 rows were dropped \(over_max_tokens 1\)"):
        convert([source], tmp_path / "c", ConvertSettings(max_tokens=length - 1))
    assert not (tmp_path / ".c.new").exists()


def test_parquet_triples_equal_jsonl_triples(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer, small_shards: None
) -> None:
    pq.write_table(pa.Table.from_pylist(triple_rows), tmp_path / "triples.parquet", row_group_size=5)
    sources = [write_rows(tmp_path / "triples.jsonl", triple_rows), tmp_path / "triples.parquet"]
    outs = [tmp_path / "a", tmp_path / "b"]
    for source, out in zip(sources, outs, strict=True):
        convert([source], out, ConvertSettings())
    lines, table = (hashes(out) for out in outs)
    assert lines.pop("manifest.json") != table.pop("manifest.json"), "the manifest names its input"
    assert lines == table and len(lines) == 8 * 4 + 2


def test_too_many_bad_rows_publish_nothing(tmp_path: Path, triple_rows: Rows, write_rows: Writer) -> None:
    source = write_rows(tmp_path / "triples.jsonl", [*triple_rows[:9], "{broken"])
    out = tmp_path / "out"
    with pytest.raises(TooManyBadRows, match=r"1 of 10 rows .*limit 9.9%.*triples.jsonl:10: broken_json") as error:
        convert([source], out, ConvertSettings(), max_bad_share=0.099)
    assert error.value.exit_code == 3 and not out.exists()
    assert convert([source], out, ConvertSettings(), max_bad_share=0.1)["dropped"] == {"broken_json": 1}


def test_a_row_that_cannot_be_tokenized_drops_only_that_row(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer
) -> None:
    endless = triple_rows[1] | {"question": "a" + " " * 1_500_000 + "b"}
    source = write_rows(tmp_path / "triples.jsonl", [triple_rows[0], endless, triple_rows[2]])
    assert convert([source], tmp_path / "out", ConvertSettings(), max_bad_share=0.5)["documents_out"] == 2
    refused = json.loads((tmp_path / "out" / "quarantine.jsonl").read_text())
    assert refused["line"] == 2 and "1500000 consecutive white space characters" in refused["detail"]


def test_another_input_or_setting_is_not_mixed_with_old_shards(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer
) -> None:
    out = tmp_path / "d*ta"
    neighbour = tmp_path / ".data.work-0"
    neighbour.mkdir()
    for rows, template in ((triple_rows[:3], "qwen3"), (triple_rows[3:6], "qwen3"), (triple_rows[:3], "qwen3")):
        source = write_rows(tmp_path / "triples.jsonl", [*rows, "{broken"])
        with pytest.raises(TooManyBadRows):  # leaves finished shards next to `out`
            convert([source], out, ConvertSettings(template=template))
        assert len([path for path in tmp_path.iterdir() if path.name.startswith(".d*ta.work-")]) == 1
    assert neighbour.is_dir(), "another dataset's work is not touched"
    source = write_rows(tmp_path / "triples.jsonl", triple_rows[3:6])
    convert([source], out, ConvertSettings(template="qwen3-thinking-2507"))
    assert open_dataset(out).samples["id"].to_pylist() == [row["id"] for row in triple_rows[3:6]]
    assert open_dataset(out).manifest["settings"]["template"] == "qwen3-thinking-2507"


def test_a_file_that_shrinks_while_it_is_read_is_refused(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "triples.jsonl", triple_rows[:3])
    real = convert_module.make_shards

    def cut_first(*arguments: Any) -> None:
        write_rows(source, triple_rows[:2])
        real(*arguments)

    monkeypatch.setattr(convert_module, "make_shards", cut_first)
    with pytest.raises(DataError, match=r"triples\.jsonl changed while it was read: 2 rows, expected 3"):
        convert([source], tmp_path / "out", ConvertSettings())


def test_a_folder_that_is_not_a_dataset_is_never_replaced(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer
) -> None:
    source = write_rows(tmp_path / "triples.jsonl", triple_rows[:1])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    compiled = tmp_path / "compiled"  # has a manifest too, and --out is easily given the name of the input
    compiled.mkdir()
    write_json(compiled / "manifest.json", {"format": FORMAT, "format_version": 1})
    (compiled / "triples.jsonl").write_bytes(source.read_bytes())
    before = hashes(compiled)
    for out in (tmp_path / "mine", source, compiled):
        with pytest.raises(DataError, match="exists and is not a dataset folder"):
            convert([source], out, ConvertSettings())
    assert (tmp_path / "mine" / "thesis.txt").is_file() and source.is_file() and hashes(compiled) == before
    with pytest.raises(DataError, match="exists and is not a dataset folder"):
        convert([compiled / "triples.jsonl"], compiled, ConvertSettings())
    assert hashes(compiled) == before


def test_other_files_in_a_dataset_folder_are_never_removed(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer
) -> None:
    source = write_rows(tmp_path / "triples.jsonl", triple_rows[:1])
    convert([source], tmp_path / "out", ConvertSettings())
    convert([source], tmp_path / "out", ConvertSettings())
    for number in range(5):
        (tmp_path / "out" / f"note{number}.txt").write_text("mine")
    before = hashes(tmp_path / "out")
    with pytest.raises(DataError, match=r"out also contains note0.txt, note1.txt, note2.txt and 2 more, which"):
        convert([source], tmp_path / "out", ConvertSettings())
    assert hashes(tmp_path / "out") == before


def test_an_unknown_template_and_an_empty_input_are_refused(tmp_path: Path, write_rows: Writer) -> None:
    source = write_rows(tmp_path / "triples.jsonl", ["", " "])
    with pytest.raises(ConfigError, match=r"template must be one of 'qwen3', 'qwen3-thinking-2507', .*, got 'chatml'"):
        convert([source], tmp_path / "out", ConvertSettings(template="chatml"))
    with pytest.raises(DataError, match="the input contains no rows"):
        convert([source], tmp_path / "out", ConvertSettings())
