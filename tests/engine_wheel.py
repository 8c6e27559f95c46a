"""Transformer Engine's published wheel, read as a zip and never imported: its classes and their arguments."""

import ast
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest
from commands import ROOT

VERSION = "2.20.2"
FOLDER = ROOT / "build" / "wheels"


@cache
def wheel() -> Path:
    """The wheel's path, 1.2 MB, fetched once by pip; the test is skipped with pip's reason where that fails."""
    file = FOLDER / f"transformer_engine-{VERSION}-py3-none-any.whl"
    if not file.is_file():
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(FOLDER), f"transformer-engine=={VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip(f"pip cannot fetch transformer-engine {VERSION}: {done.stderr.strip().splitlines()[-1:]}")
    return file


@cache
def module(path: str) -> ast.Module:
    """The syntax tree of a file of the wheel, by its path under transformer_engine/."""
    with zipfile.ZipFile(wheel()) as files:
        return ast.parse(files.read(f"transformer_engine/{path}"))


def definition(path: str, name: str) -> ast.ClassDef | ast.FunctionDef | None:
    """A class or function of a file, `Class.method` included; None where the file has none of that name."""
    body: list[ast.stmt] = module(path).body
    found: ast.ClassDef | ast.FunctionDef | None = None
    for part in name.split("."):
        found = next((n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == part), None)
        if found is None:
            return None
        body = found.body
    return found


def arguments(path: str, name: str) -> list[str]:
    """Names that a function takes, or that a class is made of: its __init__'s, or its fields where it has none."""
    found = definition(path, name)
    if isinstance(found, ast.ClassDef):
        init = definition(path, f"{name}.__init__")
        if init is None:
            return [n.target.id for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
        found = init
    assert isinstance(found, ast.FunctionDef), f"{path} has no {name}"
    names = [argument.arg for argument in (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs)]
    return [argument for argument in names if argument not in ("self", "cls")]
