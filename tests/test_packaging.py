"""The wheel: one import root, importable from anywhere, also next to another package named `kernels`."""

import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.commands import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_has_one_top_level_name(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"acc_megatron"}


def test_the_wheel_is_typed_and_contains_the_templates_of_the_pages(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "acc_megatron/py.typed",
        "acc_megatron/common/strip.html.jinja",
        "acc_megatron/plan/plan_page.html.jinja",
    } <= names


def test_every_part_can_be_imported_next_to_another_package_named_kernels(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    python = str(venv / "bin" / "python")
    done = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    packages = Path(done.stdout.strip())
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    # third-party packages come from this environment; its editable installation of ours does not (.pth is not followed)
    installed = Path(importlib.util.find_spec("torch").origin).parents[1]  # type: ignore[union-attr,arg-type]
    (packages / "dependencies.pth").write_text(f"{installed}\n")
    (packages / "kernels").mkdir()
    (packages / "kernels" / "__init__.py").write_text("foreign = True\n")
    code = (
        "import kernels; assert kernels.foreign\n"
        "import acc_megatron, acc_megatron.cli, acc_megatron.data_tools.convert.convert, acc_megatron.training.train\n"
        "import acc_megatron.kernels.masked_linear_cross_entropy.reference\n"
        "from acc_megatron.data_tools.sources import search, sql, swe\n"
        "print(acc_megatron.__file__)"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1].startswith(str(venv))


def test_in_an_empty_environment_every_verb_ends_in_one_line_and_the_doctor_runs(wheel: Path, tmp_path: Path) -> None:
    """No third-party package at all, and no pip."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    python = str(venv / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    for verb in ("compile", "convert", "train", "plan", "import", "export", "eval", "analyze", "launch", "bench"):
        done = subprocess.run([venv / "bin" / "acc-megatron", verb], capture_output=True, text=True, timeout=60)
        advice = f"run {python} -m ensurepip && {python} -m pip install typer"
        assert done.returncode == 2 and done.stderr == (
            f"error: this command needs the package typer, which is not installed: {advice}\n"
        )
    done = subprocess.run([venv / "bin" / "acc-megatron", "doctor"], capture_output=True, text=True, timeout=120)
    assert "cannot run: imports" in done.stdout and "Traceback" not in done.stderr, done.stdout + done.stderr


def test_every_test_file_that_the_makefile_names_exists() -> None:
    names = re.findall(r"tests/[\w/.]+", (ROOT / "Makefile").read_text())
    assert names and not [name for name in names if not (ROOT / name).exists()]


@pytest.mark.parametrize("name", ["kernels", "data_tools"])
def test_a_folder_cannot_be_imported_without_the_package_name(name: str) -> None:
    code = f"from {name} import masked_linear_cross_entropy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode != 0
    assert f"import acc_megatron.{name}" in done.stderr or f"No module named '{name}." in done.stderr
