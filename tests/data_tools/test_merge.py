"""Parts made anywhere and merged give the bytes of one process."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.data_tools.convert import ConvertSettings, convert, convert_part
from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.data_tools.examples_in import RowRange
from acc_megatron.data_tools.merge import merge
from acc_megatron.data_tools.shards import ShardTask
from acc_megatron.data_tools.verify import verify
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
    with pytest.raises(DataError, match=r"2 of 9 shards of .*out are not made yet: 1, 5"):
        merge(out, max_bad_share=0.1)
    assert not out.exists()
    convert_part([mixed_input], out, SETTINGS, part=(1, 4), num_workers=2)
    with pytest.raises(TooManyBadRows):
        merge(out)
    manifest = merge(out, max_bad_share=0.1)
    assert hashes(out) == hashes(dataset) and verify(out) == []
    assert manifest == open_dataset(dataset).manifest
    assert list(tmp_path.iterdir()) == [out], "no work folder is left"


def test_a_part_killed_or_doubled_does_no_harm(
    mixed_input: Path, dataset: Path, tmp_path: Path, small_shards: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for index in (0, 0, 1):
        convert_part([mixed_input], out, SETTINGS, part=(index, 2))
    assert "5 of 5 shards are there already" in capsys.readouterr().err
    merge(out, max_bad_share=0.1)
    assert hashes(out) == hashes(dataset)


def test_merging_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no unfinished conversion lies beside"):
        merge(tmp_path / "out")


def test_large_sample_tables_are_joined_in_groups(
    mixed_input: Path, dataset: Path, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    from acc_megatron.data_tools import merge as module

    monkeypatch.setattr(module, "ROWS_PER_GROUP", 20)
    convert([mixed_input], tmp_path / "out", SETTINGS, max_bad_share=0.1)
    groups = pq.ParquetFile(tmp_path / "out" / "samples.parquet").metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [24, 24, 16]
    rows: list[dict[str, Any]] = open_dataset(tmp_path / "out").samples.to_pylist()
    assert rows == open_dataset(dataset).samples.to_pylist()


@pytest.mark.slow
def test_ray_maps_the_same_function_to_the_same_bytes(
    mixed_input: Path, dataset: Path, tmp_path: Path, small_shards: None
) -> None:
    pytest.importorskip("ray")
    from acc_megatron.data_tools.on_ray import on_ray

    convert([mixed_input], tmp_path / "out", SETTINGS, max_bad_share=0.1, runner=on_ray("local"))
    assert verify(tmp_path / "out") == []
    assert hashes(tmp_path / "out") == hashes(dataset)
    lost = ShardTask(RowRange(path=tmp_path / "gone.jsonl", first_row=0, num_rows=1), SETTINGS, tmp_path / "shard")
    with pytest.raises(DataError, match=r"^cannot read .*gone\.jsonl"):
        list(on_ray("local")([lost]))
    with pytest.raises(EnvironmentProblem, match="no Ray cluster answers at 'nonsense'"):
        list(on_ray("nonsense")([lost]))
