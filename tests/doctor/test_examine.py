"""The doctor against real faults: each is a package or a setting that is really wrong in a child process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT


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


def test_a_whole_environment_can_run_and_what_is_absent_is_named_with_its_effect() -> None:
    status, findings = doctor()
    assert status == 0
    for name in ("python", "acc-megatron", "python packages", "torch", "megatron-core", "triton", "qwen3 vocabulary"):
        assert findings[name]["state"] == "ok", findings[name]
    assert all(f["effect"] and f["found"] for f in findings.values() if f["state"] in ("missing", "wrong"))


def test_a_job_that_cannot_run_is_refused_with_every_reason(tmp_path: Path) -> None:
    recipe = str(ROOT / "examples" / "qwen3_30b_a3b_128k_h100.toml")
    status, findings = doctor("--config", recipe, "--gpus", "12", f"data.path={tmp_path}/none")
    assert status == 1
    layout = findings["layout on 12 ranks"]
    assert layout["state"] == "wrong" and "12" in layout["found"] and "does not divide" in layout["found"]
    assert findings["dataset"]["state"] == "wrong" and f"{tmp_path}/none" in findings["dataset"]["found"]
    assert findings["initial weights"]["state"] == "wrong"


def test_a_job_that_can_run_is_let_through(recipe: Path) -> None:
    status, findings = doctor("--config", str(recipe))
    assert status == 0
    assert findings["layout on 1 ranks"]["state"] == "ok"
    assert "6 documents" in findings["dataset"]["found"]


def test_a_foreign_apex_is_told_from_nvidias(tmp_path: Path) -> None:
    _, findings = doctor(path=package(tmp_path, "apex", "implementation = 'a toolkit for web pages'\n"))
    assert findings["apex"]["state"] == "wrong" and "uninstall" in findings["apex"]["mend"]


def test_a_transformer_engine_that_breaks_the_engine_is_blamed(tmp_path: Path) -> None:
    broken = package(tmp_path, "transformer_engine", "raise RuntimeError('Found empty meta package')\n")
    status, findings = doctor(path=broken)
    engine = findings["transformer engine"]
    assert engine["state"] in ("wrong", "unseen") and "Found empty meta package" in engine["found"]
    assert "Found empty meta package" in findings["megatron-core"]["found"]
    assert status == (1 if findings["megatron-core"]["state"] == "wrong" else 0)


def test_a_package_that_crashes_the_interpreter_is_survived(tmp_path: Path) -> None:
    _, findings = doctor(path=package(tmp_path, "triton", "import os; os.abort()\n"))
    assert findings["triton"]["state"] == "wrong" and "status -6" in findings["triton"]["found"]


def test_another_version_than_the_tested_one_is_named_with_both(tmp_path: Path) -> None:
    info = tmp_path / "torch-2.9.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.9.1\n")
    status, findings = doctor(path=tmp_path)
    assert status == 1
    assert "torch 2.9.1" in findings["python packages"]["found"] and ">=2.13" in findings["python packages"]["found"]


def test_a_second_copy_of_the_package_is_found(tmp_path: Path) -> None:
    from acc_megatron.doctor import packages

    package(tmp_path, "acc_megatron", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        found = next(packages.check_names())
    assert found.state == "wrong" and str(tmp_path) in found.found


def test_a_vendors_build_counts_as_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    from packaging.requirements import Requirement

    from acc_megatron.doctor import packages

    monkeypatch.setattr(packages, "_version", lambda name: "2.13.0a0+nv26.06")
    assert packages._problem(Requirement("torch>=2.13,<2.14")) is None
    monkeypatch.setattr(packages, "_version", lambda name: "2.14.0a0+nv26.09")
    assert packages._problem(Requirement("torch>=2.13,<2.14")) is not None
