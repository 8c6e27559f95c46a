"""The wheel: one import root, importable from anywhere, and unharmed by a foreign package named `kernels`."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


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


def test_each_part_imports_from_an_empty_venv_and_another_folder_beside_a_foreign_kernels(
    wheel: Path, tmp_path: Path
) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    python = str(venv / "bin" / "python")
    done = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    packages = Path(done.stdout.strip())
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    # third-party packages come from this environment; its editable install of ours does not (no .pth is followed)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (packages / "kernels").mkdir()
    (packages / "kernels" / "__init__.py").write_text("foreign = True\n")
    code = (
        "import kernels; assert kernels.foreign\n"
        "import acc_megatron, acc_megatron.cli, acc_megatron.data_tools.convert, acc_megatron.train\n"
        "import acc_megatron.kernels.masked_linear_cross_entropy.reference\n"
        "from acc_megatron.data_tools.sources import search, sql, swe\n"
        "print(acc_megatron.__file__)"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1].startswith(str(venv))


@pytest.mark.parametrize("name", ["kernels", "data_tools"])
def test_the_bare_folder_names_give_nothing(name: str) -> None:
    code = f"from {name} import masked_linear_cross_entropy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode != 0
    assert f"import acc_megatron.{name}" in done.stderr or f"No module named '{name}." in done.stderr
