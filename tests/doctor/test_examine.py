"""The doctor and real faults: in a child process, a package or a setting is actually wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from support.commands import ROOT

from acc_megatron import optional
from acc_megatron.config import load_config
from acc_megatron.doctor import packages
from acc_megatron.doctor.configured_job import check_configured
from acc_megatron.doctor.examine import PROBED
from acc_megatron.doctor.finding import Finding
from acc_megatron.doctor.packages import MEGATRON_CORE, check_imports
from acc_megatron.doctor.probe import probe


def doctor(*arguments: str, path: Path | None = None) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status and findings by name; `path` comes before every installed package."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    command = [sys.executable, "-m", "acc_megatron", "doctor", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=path or ROOT)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert told["can_run"] == (done.returncode == 0)
    return done.returncode, {finding["name"]: finding for finding in told["findings"]}


def package(folder: Path, name: str, text: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return folder


def test_a_complete_environment_can_run_and_every_missing_package_has_its_effect() -> None:
    status, findings = doctor()
    assert status == 0
    for name in ("python", "acc-megatron", "python packages", "torch", "megatron-core", "triton", "qwen3 vocabulary"):
        assert findings[name]["state"] == "ok", findings[name]
    assert all(f["effect"] and f["found"] for f in findings.values() if f["state"] in ("missing", "wrong"))


@pytest.mark.slow
def test_a_job_that_cannot_run_is_refused_with_every_reason(tmp_path: Path) -> None:
    recipe = str(ROOT / "tests" / "support" / "recipe_30b.toml")
    status, findings = doctor("--config", recipe, "--gpus", "12", f"data.path={tmp_path}/none")
    assert status == 1
    layout = findings["layout on 12 ranks"]
    assert layout["state"] == "wrong" and "12" in layout["found"] and "does not divide" in layout["found"]
    assert findings["dataset"]["state"] == "wrong" and f"{tmp_path}/none" in findings["dataset"]["found"]
    assert findings["initial weights"]["state"] == "wrong"


@pytest.mark.slow
def test_a_job_that_can_run_is_accepted(recipe: Path) -> None:
    status, findings = doctor("--config", str(recipe))
    assert status == 0
    assert findings["layout on 1 ranks"]["state"] == "ok"
    assert "6 documents" in findings["dataset"]["found"]


def test_layout_dataset_and_initial_weights_of_a_job_are_checked(tmp_path: Path, dataset: Path) -> None:
    example = ROOT / "tests" / "support" / "recipe_30b.toml"
    absent = load_config(example, [f"data.path={tmp_path}/none", f"train.init_from={tmp_path}/none"])
    layout, data, weights = check_configured(absent, 12)
    assert layout.name == "layout on 12 ranks" and "does not divide 12 ranks" in layout.found
    assert f"{tmp_path}/none" in data.found and f"{tmp_path}/none" in weights.found
    assert layout.stops_the_job and data.stops_the_job and weights.stops_the_job
    good = next(finding for finding in check_configured(load_config(example, [f"data.path={dataset}"]), 64)
                if finding.name == "dataset")  # fmt: skip
    assert good.state == "ok" and "6 documents" in good.found


@pytest.mark.parametrize(("pipeline", "expert", "ranks"), [(4, 4, 16), (2, 1, 2), (1, 8, 8)])
def test_the_default_number_of_ranks_is_the_smallest_that_the_layout_allows(
    pipeline: int, expert: int, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same number as for `plan`: dense and expert layers share the pipeline axis."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    example = ROOT / "tests" / "support" / "recipe_30b.toml"
    axes = ["parallel.tensor=1", "parallel.context=1", f"parallel.pipeline={pipeline}", f"parallel.expert={expert}"]
    layout = next(check_configured(load_config(example, axes), None))
    assert layout.name == f"layout on {ranks} ranks" and layout.state == "ok", layout


def imports(*probed: str) -> dict[str, Finding]:
    """Findings about imports: these packages are really imported in child processes, the others count as good."""
    good = {"version": MEGATRON_CORE, "cuda_build": None, "fused_adam": True}
    facts = {name: probe(name) if name in probed else good for name in PROBED}
    return {finding.name: finding for finding in check_imports(facts, driver=False)}


@pytest.fixture
def before_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose packages child processes find before installed ones."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_another_project_called_apex_is_distinguished_from_nvidias(before_installed: Path) -> None:
    package(before_installed, "apex", "implementation = 'a toolkit for web pages'\n")
    apex = imports("apex")["apex"]
    assert apex.state == "wrong" and "uninstall" in apex.fix


def test_a_transformer_engine_that_cannot_be_imported_is_reported(before_installed: Path) -> None:
    package(before_installed, "transformer_engine", "raise RuntimeError('Found empty meta package')\n")
    engine = imports("transformer_engine")["transformer engine"]
    assert engine.state == "wrong" and "Found empty meta package" in engine.found


@pytest.mark.slow
def test_a_transformer_engine_that_breaks_megatron_is_reported(tmp_path: Path) -> None:
    broken = package(tmp_path, "transformer_engine", "raise RuntimeError('Found empty meta package')\n")
    status, findings = doctor(path=broken)
    engine = findings["transformer engine"]
    assert engine["state"] in ("wrong", "unseen") and "Found empty meta package" in engine["found"]
    assert "Found empty meta package" in findings["megatron-core"]["found"]
    assert status == (1 if findings["megatron-core"]["state"] == "wrong" else 0)


def test_a_package_that_crashes_the_interpreter_does_not_stop_the_doctor(before_installed: Path) -> None:
    package(before_installed, "triton", "import os; os.abort()\n")
    triton = imports("triton")["triton"]
    assert triton.state == "wrong" and "exit status -6" in triton.found


def test_an_untested_version_is_reported_with_the_required_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "torch-2.9.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.9.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = next(packages.check_versions())
    assert found.stops_the_job and "torch 2.9.1" in found.found and ">=2.13" in found.found
    assert "pip install" in found.fix and "torch" in found.fix


def test_every_extra_is_listed_by_its_name() -> None:
    extras = {line.extra for line in optional.requirements()} - {"", "dev"}
    assert extras == set(packages.EXTRAS)


def test_a_second_copy_of_the_package_is_found(tmp_path: Path) -> None:
    package(tmp_path, "acc_megatron", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        found = next(packages.check_names())
    assert found.state == "wrong" and str(tmp_path) in found.found


def test_the_build_of_a_vendor_counts_as_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_version", lambda name: "2.13.0a0+nv26.06")
    assert packages._problem(Requirement("torch>=2.13,<2.14")) is None
    monkeypatch.setattr(packages, "_version", lambda name: "2.14.0a0+nv26.09")
    assert packages._problem(Requirement("torch>=2.13,<2.14")) is not None
