"""The report page stands alone, and its numbers are those of the dataset and the run."""

import re
from pathlib import Path

import pytest

from acc_megatron.data_tools.dataset_folder import open_dataset
from acc_megatron.data_tools.verify import verify
from acc_megatron.errors import DataError
from acc_megatron.observe.metrics import MetricsLog, read_steps
from acc_megatron.observe.report import write_report


def log_run(folder: Path, steps: range) -> None:
    with MetricsLog(folder, active=True) as log:
        for step in steps:
            log.step(
                step, loss=10.0 / step, learning_rate=0.1, grad_norm=1.0, tokens_per_second=5.0, layout="TP1 <CP2>"
            )


def test_a_step_done_again_after_a_restart_counts_once(tmp_path: Path) -> None:
    log_run(tmp_path, range(1, 5))
    log_run(tmp_path, range(3, 7))
    assert [row["step"] for row in read_steps(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_an_inactive_log_writes_nothing(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "run", active=False) as log:
        log.step(1, loss=1.0)
    assert not (tmp_path / "run").exists()


def test_the_page_links_to_nothing_and_shows_the_books(dataset: Path, tmp_path: Path) -> None:
    log_run(tmp_path / "run", range(1, 5))
    (tmp_path / "dataset").symlink_to(dataset)
    page = write_report(tmp_path)
    text = page.read_text()
    assert not re.findall(r'(?:src|href)="(?!#)', text.replace("xlink:href", "href")), "no resource from outside"
    assert "<script" not in text
    manifest = open_dataset(dataset).manifest
    assert f"{manifest['documents_in']:,} rows in = {manifest['documents_out']:,} documents" in text
    assert "loss 10.000 at step 1, 2.500 at step 4" in text
    assert "TP1 &lt;CP2&gt;" in text, "text from files is escaped"
    assert text.count("<svg") == 2


def test_the_page_of_a_dataset_leaves_the_dataset_whole(dataset: Path) -> None:
    page = write_report(dataset)
    assert page.parent == dataset.parent
    assert verify(dataset) == []


def test_a_folder_with_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a dataset"):
        write_report(tmp_path)
