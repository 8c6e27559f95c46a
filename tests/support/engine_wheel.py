"""Reads Transformer Engine's published wheel as a zip, without importing it: its classes and their arguments."""

import ast
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

from support.commands import ROOT

FOLDER = ROOT / "build" / "wheels"


def version() -> str:
    """The version that constraints-engine.txt pins."""
    lines = (ROOT / "constraints-engine.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith("transformer_engine=="))


@cache
def wheel() -> Path:
    """The wheel's path, 1.2 MB, downloaded once by pip; skips the test with pip's message if that fails."""
    file = FOLDER / f"transformer_engine-{version()}-py3-none-any.whl"
    if not file.is_file():
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(FOLDER), f"transformer-engine=={version()}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip(f"pip cannot download transformer-engine {version()}: {done.stderr.strip().splitlines()[-1:]}")
    return file


@cache
def module(path: str) -> ast.Module:
    """The syntax tree of a file of the wheel, by its path under transformer_engine/."""
    with zipfile.ZipFile(wheel()) as files:
        return ast.parse(files.read(f"transformer_engine/{path}"))


def definition(path: str, name: str) -> ast.ClassDef | ast.FunctionDef | None:
    """A class or function of a file; `Class.method` names a method. None if the file does not define it."""
    body: list[ast.stmt] = module(path).body
    found: ast.ClassDef | ast.FunctionDef | None = None
    for part in name.split("."):
        found = next((n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == part), None)
        if found is None:
            return None
        body = found.body
    return found


def arguments(path: str, name: str) -> list[str]:
    """The arguments of a function, or of a class's `__init__`; the fields of a class without one."""
    found = definition(path, name)
    if isinstance(found, ast.ClassDef):
        init = definition(path, f"{name}.__init__")
        if init is None:
            return [n.target.id for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
        found = init
    assert isinstance(found, ast.FunctionDef), f"{path} does not define {name}"
    names = [argument.arg for argument in (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs)]
    return [argument for argument in names if argument not in ("self", "cls")]
