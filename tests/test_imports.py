"""The direction of dependencies and the safety of the code, held by walking every file's syntax tree."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"acc_megatron": "acc_megatron", "kernels": "acc_megatron.kernels", "data_tools": "acc_megatron.data_tools"}
SOURCES = [path for folder in (*FOLDERS, "examples") for path in sorted((ROOT / folder).rglob("*.py"))]
# a part may import the parts on its right, and itself
ALLOWED = {
    "errors": set(),
    "ranks": set(),
    "machines": {"errors"},
    "data_tools": {"errors"},
    "kernels": {"errors"},
    "cpu_backend": set(),
    "config": {"errors"},
    "flops": {"config"},
    "layout": {"config", "errors"},
    "schedule": {"config"},
    "compatibility": {"config", "errors", "layout", "model"},
    "data": {"config", "data_tools", "errors", "flops", "layout"},
    "model": {"config", "data", "layout", "errors"},
    "loss": {"config", "kernels", "ranks"},
    "optimizer": {"config", "model"},
    "checkpoint": {"config", "data_tools", "distributed", "errors", "layout", "model", "ranks"},
    "distributed": {"checkpoint", "config", "cpu_backend", "layout", "ranks"},
    "observe": {"config", "data", "data_tools", "errors", "flops", "machines", "ranks"},
    "evaluate": {"config", "data_tools", "errors", "observe"},
    "trainer": {"checkpoint", "config", "data", "data_tools", "layout", "model", "observe", "optimizer", "resilience"},
    "resume": {"checkpoint", "config", "errors", "ranks", "resilience", "trainer"},
    "step": {"config", "data", "errors", "flops", "loss", "observe", "optimizer", "resilience", "schedule", "trainer"},
    "resilience": {"config", "data_tools", "errors", "ranks"},
    "train": {
        "config", "data_tools", "distributed", "errors", "observe", "ranks", "resilience", "resume", "step", "trainer",
    },
    "plan": {
        "compatibility", "config", "data", "data_tools", "distributed", "errors", "flops", "layout",
        "machines", "model",
    },
    "launch": {"compatibility", "config", "errors", "layout"},
    "analyze": {
        "checkpoint", "config", "data", "data_tools", "distributed", "errors", "layout", "model", "observe", "ranks",
    },
    "quickstart": {"config", "data_tools", "errors", "observe"},
    "bench": {
        "config", "cpu_backend", "data", "data_tools", "distributed", "errors", "kernels", "loss", "model", "observe",
        "optimizer", "resume", "step", "trainer",
    },
    "doctor": {"checkpoint", "compatibility", "config", "cpu_backend", "data_tools", "errors"},
    "cli": {
        "analyze", "bench", "checkpoint", "compatibility", "config", "data_tools", "doctor", "errors", "evaluate",
        "launch", "machines", "observe", "plan", "quickstart", "ranks", "train",
    },
    "__main__": {"cli"},
}  # fmt: skip


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
def test_every_import_points_down_the_stated_direction(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    if folder == "examples":
        assert not [name for name in imports(path) if name.startswith("acc_megatron")]
        return
    own = folder if folder != "acc_megatron" else path.relative_to(ROOT / folder).parts[0].removesuffix(".py")
    if own == "__init__":
        own = ""
    for name in imports(path):
        if name.split(".")[0] == "acc_megatron" and (target := part(name)) not in (own, "", "__version__"):
            assert target in ALLOWED[own], f"{path} ({own}) imports {name}"
        if folder == "data_tools":
            assert name.split(".")[0] not in ("torch", "megatron", "transformers"), f"{path} imports {name}"
        if folder == "kernels":
            assert name.split(".")[0] != "megatron", f"{path} imports {name}"


def test_the_light_verbs_import_no_torch() -> None:
    code = (
        "import sys, acc_megatron.cli, acc_megatron.data_tools.convert, acc_megatron.data_tools.compile, "
        "acc_megatron.config, acc_megatron.layout, acc_megatron.doctor.job\n"
        "assert 'torch' not in sys.modules, 'torch is imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_data_is_ever_code(path: Path) -> None:
    """S4: no pickle, eval, shell string or trusted remote code anywhere."""
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
    assert text.count("\n") <= 500
    assert ast.get_docstring(tree), f"{path} has no docstring"
    limit = 120 if path.relative_to(ROOT).parts[0] == "kernels" else 80
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert isinstance(node, ast.ClassDef) or lines <= limit, f"{path}:{node.lineno} {node.name}: {lines} lines"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name} has no docstring"


def test_every_package_is_in_the_wheel_and_nothing_else() -> None:
    text = (ROOT / "setup.py").read_text()
    found = {
        f"{FOLDERS[folder]}{'.' + '.'.join(path.relative_to(ROOT / folder).parts) if path != ROOT / folder else ''}"
        for folder in FOLDERS
        for path in {file.parent for file in (ROOT / folder).rglob("*.py")}
    }
    namespace: dict[str, object] = {}
    tree = ast.parse(text)
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("FOLDERS", "SUBPACKAGES"):
            namespace[ast.unparse(node.targets[0])] = ast.literal_eval(node.value)
    subpackages: dict[str, list[str]] = namespace["SUBPACKAGES"]  # type: ignore[assignment]
    named = set(namespace["FOLDERS"]) | {f"{p}.{n}" for p, names in subpackages.items() for n in names}  # type: ignore[call-overload]
    assert named == found
    assert "build-system" in tomllib.loads((ROOT / "pyproject.toml").read_text())
