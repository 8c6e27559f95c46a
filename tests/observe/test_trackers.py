"""Trackers get the logged numbers, continue after a restart, and never stop a run by an error."""

import dataclasses
import math
import time
from pathlib import Path

import pytest
from support.make_inputs import TINY_MODEL

from acc_megatron.compatibility import check_compatible
from acc_megatron.config import Config, DataConfig, ModelConfig, ObserveConfig, OptimizerConfig, TrainConfig
from acc_megatron.errors import EnvironmentProblem
from acc_megatron.mesh.layout import Layout
from acc_megatron.observe.metrics import MetricsLog, read_steps

ONE_PROCESS = Layout(world=1, tensor=1, context=1, pipeline=1, expert=1, expert_tensor=1)


def make_config(run_dir: Path, **observe: str) -> Config:
    return Config(
        name="watched",
        model=ModelConfig(**TINY_MODEL),
        data=DataConfig(path="unused", seq_length_tokens=256),
        optimizer=OptimizerConfig(learning_rate=1e-3, min_learning_rate=1e-3),
        train=TrainConfig(run_dir=str(run_dir), global_batch_rows=1),
        observe=ObserveConfig(**observe),
    )


def log_two_parts(run_dir: Path, config: Config) -> None:
    for first in (1, 3):
        with MetricsLog(run_dir, active=True, first_step=first, config=config) as log:
            for step in (first, first + 1):
                log.step(step, loss=10.0 / step, expert_load_max_over_mean=[1.0, 1.0 + step], layout="TP1")


def test_mlflow_has_all_numbers_of_a_restarted_run_in_one_run(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    log_two_parts(tmp_path / "run", make_config(tmp_path / "run", mlflow=address))
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("watched")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.learning_rate"] == "0.001"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(step, 10.0 / step) for step in range(1, 5)]
    worst = client.get_metric_history(run.info.run_id, "expert_load_max_over_mean_worst_layer")
    assert [metric.value for metric in sorted(worst, key=lambda metric: metric.step)] == [2.0, 3.0, 4.0, 5.0]


def test_wandb_records_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    run_dir = tmp_path / "run"
    with MetricsLog(run_dir, active=True, config=make_config(run_dir, wandb="project")) as log:
        log.step(1, loss=2.5)
    (written,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    expected = [b"loss", b"2.5", (run_dir / "wandb_run_id").read_bytes()]
    until = time.monotonic() + 30  # a process of wandb writes the file
    while not all(part in written.read_bytes() for part in expected):
        assert time.monotonic() < until, written.read_bytes()
        time.sleep(0.1)


def test_a_tracker_that_fails_does_not_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "no_folder").write_text("")
    log_two_parts(tmp_path / "run", make_config(tmp_path / "run", mlflow=f"{tmp_path}/no_folder/x"))
    assert len(read_steps(tmp_path / "run")) == 4
    assert "observe.mlflow failed and is turned off; the run continues" in capsys.readouterr().err


def test_a_tracker_that_is_not_installed_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = make_config(tmp_path, wandb="project")
    with pytest.raises(EnvironmentProblem, match=r"pip install wandb"):
        check_compatible(config, ONE_PROCESS, has_gpu=True)
    off = dataclasses.replace(config, observe=ObserveConfig())
    check_compatible(off, ONE_PROCESS, has_gpu=True)


def test_a_number_that_is_not_valid_json_is_refused(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, active=True) as log, pytest.raises(ValueError, match="not JSON compliant"):
        log.step(1, loss=math.nan)
