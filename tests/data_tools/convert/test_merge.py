"""Merged parts have the bytes that one process writes."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from acc_megatron.cli.convert import verbs
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert, convert_part
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.merge import merge
from acc_megatron.data_tools.convert.shards import ShardTask, make_shard
from acc_megatron.data_tools.convert.verify import verify
from acc_megatron.data_tools.sharding.row_ranges import RowRange
from acc_megatron.errors import DataError, EnvironmentProblem, TooManyBadRows

SETTINGS = ConvertSettings(max_tokens=900)


def hashes(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_parts_in_any_order_merge_to_the_bytes_of_one_process(
    mixed_input: Path, dataset: Path, tmp_path: Path, small_shards: None
) -> None:
    out = tmp_path / "out"
    made = [convert_part([mixed_input], out, SETTINGS, part=(index, 4)) for index in (3, 0, 2)]
    assert [part["shards_made"] for part in made] == [2, 3, 2] and made[0]["shards"] == 9
    with pytest.raises(DataError, match=r"2 of 9 shards of .*out are missing: 1, 5"):
        merge(out, max_bad_share=0.1)
    assert not out.exists()
    convert_part([mixed_input], out, SETTINGS, part=(1, 4), num_workers=2)
    with pytest.raises(TooManyBadRows):
        merge(out)
    manifest = merge(out, max_bad_share=0.1)
    assert hashes(out) == hashes(dataset) and verify(out) == []
    assert manifest == open_dataset(dataset).manifest
    assert list(tmp_path.iterdir()) == [out], "no work folder is left"


def test_a_part_that_is_made_twice_changes_nothing(
    mixed_input: Path, dataset: Path, tmp_path: Path, small_shards: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for index in (0, 0, 1):
        convert_part([mixed_input], out, SETTINGS, part=(index, 2))
    assert "5 of 5 shards already exist" in capsys.readouterr().err
    merge(out, max_bad_share=0.1)
    assert hashes(out) == hashes(dataset)


def test_merge_without_shards_is_refused(tmp_path: Path) -> None:
    for out in (tmp_path / "out", tmp_path / "absent" / "out"):
        with pytest.raises(DataError, match=r"no shards of .*out to merge: run 'acc-megatron convert --shard"):
            merge(out)


class Killed(BaseException):
    """Raised at the place where a kill is tried."""


@pytest.mark.parametrize("num_removed", [0, 1, None], ids=["before", "during", "after"])
def test_merge_killed_after_it_has_published_says_that_it_is_done(
    num_removed: int | None,
    mixed_input: Path,
    dataset: Path,
    tmp_path: Path,
    small_shards: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed before, during and after the removal of its work folder."""
    out = tmp_path / "out"
    convert_part([mixed_input], out, SETTINGS, part=(0, 1))
    (work,) = tmp_path.glob(".out.work-*")
    real = shutil.rmtree

    def killed_rmtree(path: Path, **options: Any) -> None:
        if path != work:
            return real(path, **options)
        for shard in sorted(work.glob("0*"))[:num_removed]:
            real(shard)
        if num_removed is None:
            real(work)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed_rmtree)
        with pytest.raises(Killed):
            merge(out, max_bad_share=0.1)
    again = CliRunner().invoke(verbs, ["merge", str(out), "--max-bad", "0.1", "--json"])
    assert again.exit_code == 0 and "is already published, nothing to do" in again.stderr
    assert json.loads(again.stdout)["documents_out"] == 64
    assert hashes(out) == hashes(dataset) and list(tmp_path.iterdir()) == [out]


def test_large_sample_tables_are_joined_in_groups(
    mixed_input: Path, dataset: Path, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    from acc_megatron.data_tools.convert import merge as module

    monkeypatch.setattr(module, "ROWS_PER_GROUP", 20)
    convert([mixed_input], tmp_path / "out", SETTINGS, max_bad_share=0.1)
    groups = pq.ParquetFile(tmp_path / "out" / "samples.parquet").metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [24, 24, 16]
    rows: list[dict[str, Any]] = open_dataset(tmp_path / "out").samples.to_pylist()
    assert rows == open_dataset(dataset).samples.to_pylist()


@pytest.mark.slow
def test_a_ray_cluster_makes_the_same_bytes(
    mixed_input: Path, dataset: Path, tmp_path: Path, small_shards: None
) -> None:
    pytest.importorskip("ray")
    from acc_megatron.data_tools.convert.ray_shards import on_ray

    convert([mixed_input], tmp_path / "out", SETTINGS, max_bad_share=0.1, runner=on_ray("local"))
    assert verify(tmp_path / "out") == []
    assert hashes(tmp_path / "out") == hashes(dataset)
    lost = ShardTask(RowRange(path=tmp_path / "gone.jsonl", first_row=0, num_rows=1), SETTINGS, tmp_path / "shard")
    with pytest.raises(DataError, match=r"^cannot read .*gone\.jsonl"):
        list(on_ray("local")([lost], make_shard))
    with pytest.raises(EnvironmentProblem, match="no Ray cluster at 'nonsense'"):
        list(on_ray("nonsense")([lost], make_shard))
