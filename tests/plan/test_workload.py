"""A plan uses the rows of the dataset, or without one assumed document lengths, and says so."""

from pathlib import Path

import pytest
from support.commands import ROOT

from acc_megatron.bench.random_dataset import write_dataset
from acc_megatron.config import load_config
from acc_megatron.plan.workload import read_workload

RECIPE = ROOT / "tests" / "support" / "recipe_30b.toml"


def test_a_plan_uses_the_document_lengths_of_the_dataset(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", [640, 320, 64, 960, 40], 1000, supervised_share=0.25)
    config = load_config(
        RECIPE,
        [f"data.path={folder}", "data.seq_length_tokens=1024", "train.global_batch_rows=1", "train.epochs=3"],
    )
    workload = read_workload(config)
    # 960 + 64; 640 + 320 + 64 (40, padded)
    assert workload.num_rows == 2 and workload.num_steps == 6 and str(folder) in workload.source
    assert workload.document_tokens == 1024
    assert workload.squared_tokens == (960**2 + 64**2 + 640**2 + 320**2 + 64**2) / 2
    assert workload.supervised_tokens == (240 + 16 + 160 + 80 + 10) / 2
    assert sorted(workload.fullest.documents_tokens) == [64, 960] and workload.fullest.supervised_tokens == 256


def test_without_a_dataset_the_source_says_that_lengths_are_assumed() -> None:
    workload = read_workload(load_config(RECIPE, ["data.path=nowhere"]))
    assert workload.source.startswith("assumed, because nowhere is not a dataset")
    assert workload.supervised_tokens / workload.document_tokens == pytest.approx(0.04, rel=0.01)


def test_more_data_parallel_ranks_wait_longer_for_each_other() -> None:
    workload = read_workload(load_config(RECIPE, ["data.path=nowhere"]))
    assert workload.balance(1, 16) == 1.0
    assert 0.5 < workload.balance(16, 16) < workload.balance(4, 16) < 1.0
