"""The stand-in for Transformer Engine against the published wheel: every public name and argument is the original's."""

import ast
from pathlib import Path

import pytest
from commands import ROOT
from engine_wheel import VERSION, arguments, definition, module

STANDIN = ROOT / "tests" / "transformer_engine_standin" / "transformer_engine"
FILES = sorted(str(path.relative_to(STANDIN)) for path in STANDIN.rglob("*.py"))


def public(path: str) -> list[ast.ClassDef | ast.FunctionDef]:
    """Classes and functions of a file that others may use."""
    body = ast.parse((STANDIN / path).read_text()).body
    return [node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")]


def own_arguments(node: ast.FunctionDef) -> list[str]:
    named = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return [argument.arg for argument in named if argument.arg not in ("self", "cls")]


def test_the_stand_in_says_the_version_it_was_held_to() -> None:
    assert f'__version__ = "{VERSION}"' in (STANDIN / "__init__.py").read_text()
    assert sum(len(public(path)) for path in FILES) > 30


@pytest.mark.parametrize("path", [path for path in FILES if public(path)])
def test_every_class_and_argument_of_the_stand_in_is_the_originals(path: str) -> None:
    for node in public(path):
        original = definition(path, node.name)
        assert original is not None, f"{path} of the wheel has no {node.name}"
        if isinstance(node, ast.FunctionDef):
            check_order(own_arguments(node), arguments(path, node.name), f"{path}: {node.name}")
            continue
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name in ("__init__", "forward"):
                theirs = definition(path, f"{node.name}.{method.name}")
                if theirs is None:  # the base's
                    assert method.name == "forward" and node.name == "RMSNorm"
                    continue
                check_order(
                    own_arguments(method), arguments(path, f"{node.name}.{method.name}"), f"{node.name}.{method.name}"
                )
            elif isinstance(method, ast.AnnAssign):
                name = ast.unparse(method.target)
                if not name.startswith("_") and name != "entered":
                    assert name in arguments(path, node.name), f"{node.name}.{name}"


def check_order(ours: list[str], theirs: list[str], where: str) -> None:
    """Ours are among theirs and in their order, so that calls by position mean the same."""
    assert set(ours) <= set(theirs), f"{where}: {set(ours) - set(theirs)}"
    assert ours == [name for name in theirs if name in ours], where


@pytest.mark.parametrize("path", FILES)
def test_what_a_package_of_the_stand_in_exports_the_original_has_too(path: str) -> None:
    if Path(path).name not in ("__init__.py", "fp8.py"):
        return
    ours = {
        alias.name
        for node in ast.walk(ast.parse((STANDIN / path).read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    theirs = ast.unparse(module(path))
    submodules = {Path(file).parent.name if file.endswith("__init__.py") else Path(file).stem for file in FILES}
    for name in ours:
        assert name in theirs or name in submodules, f"{path}: {name}"
