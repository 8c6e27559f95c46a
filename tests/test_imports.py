"""Checks the syntax tree of every file: import direction, unsafe calls, sizes and docstrings."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from setuptools import find_packages
from support.commands import ROOT

FOLDERS = ("acc_megatron", "kernels", "data_tools", "examples")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
# a part may import itself and the parts that stand before it
ORDER = (
    "errors", "optional", "common", "data_tools", "kernels", "config", "mesh", "model", "adapter", "data", "checkpoint",
    "observe", "resilience", "training", "compatibility", "plan", "calibrate", "launch", "doctor", "evaluate",
    "analyze", "bench", "selftest", "quickstart", "api", "cli", "__main__",
)  # fmt: skip
# parts that serve outside of training import these parts only
ONLY = {
    "optional": {"errors"},
    "common": {"errors", "optional"},
    "data_tools": {"errors", "optional", "common"},
    "kernels": {"errors", "optional"},
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(module: str) -> str:
    names = module.split(".")
    return names[1] if len(names) > 1 else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_import_follows_the_stated_direction(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    if folder == "examples":
        assert not [name for name in imports(path) if name.startswith("acc_megatron")]
        return
    own = folder if folder != "acc_megatron" else path.relative_to(ROOT / folder).parts[0].removesuffix(".py")
    for name in imports(path):
        if name.split(".")[0] == "acc_megatron" and (target := part(name)) not in (own, "", "__version__"):
            assert own == "__init__" or ORDER.index(target) < ORDER.index(own), f"{path} ({own}) imports {name}"
            assert target in ONLY.get(own, {target}), f"{path} ({own}) imports {name}"
        if folder == "data_tools" or own == "common":
            assert name.split(".")[0] not in ("torch", "megatron", "transformers"), f"{path} imports {name}"
        if folder == "kernels":
            assert name.split(".")[0] != "megatron", f"{path} imports {name}"


def test_the_light_verbs_import_no_torch() -> None:
    code = (
        "import sys, acc_megatron as acc; assert 'numpy' not in sys.modules, 'numpy is imported'\n"
        "acc.open_dataset, acc.compile, acc.convert, acc.load_config, acc.plan, acc.read_run, acc.kernels\n"
        "import acc_megatron.cli, acc_megatron.data_tools.convert.convert\n"
        "import acc_megatron.data_tools.compile.compile, acc_megatron.mesh.layout, acc_megatron.doctor.configured_job\n"
        "assert 'torch' not in sys.modules, 'torch is imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_data_is_never_executed(path: Path) -> None:
    """No file uses pickle, eval, shell strings or trusted remote code (promise S4)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {"pickle", "marshal", "shelve", "dill", "yaml"} & set(names), f"{path}:{node.lineno}"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        where = f"{path}:{node.lineno}: {called}"
        assert called not in ("eval", "exec", "os.system", "os.popen"), where
        assert keywords.get("shell") != "True" and keywords.get("trust_remote_code") != "True", where
        assert keywords.get("allow_pickle") != "True", where
        if called == "torch.load":
            assert keywords.get("weights_only") == "True", where


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small_and_public_ones_are_documented(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= 400
    assert ast.get_docstring(tree), f"{path} has no docstring"
    limit = 120 if path.relative_to(ROOT).parts[0] == "kernels" else 80
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert isinstance(node, ast.ClassDef) or lines <= limit, f"{path}:{node.lineno} {node.name}: {lines} lines"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name} has no docstring"


def test_setup_finds_every_package_and_nothing_else() -> None:
    found = set()
    for folder, prefix in (("acc_megatron", ()), ("kernels", ("acc_megatron",)), ("data_tools", ("acc_megatron",))):
        for path in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join((*prefix, *path.parent.relative_to(ROOT).parts)))
    assert set(find_packages(str(ROOT), include=["acc_megatron", "acc_megatron.*"])) == found
    assert {"acc_megatron.kernels", "acc_megatron.data_tools"} <= found


def test_the_links_in_the_package_name_the_top_level_folders() -> None:
    for name in ("kernels", "data_tools"):
        assert (ROOT / "acc_megatron" / name).is_symlink()
        assert (ROOT / "acc_megatron" / name).resolve() == ROOT / name
