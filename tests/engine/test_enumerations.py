"""The emulated enumerations against the names that the wheel's Python uses."""

import ast
from collections import defaultdict

from support.engine.enumerations import MEMBERS
from support.engine.install import FOLDER

PYTHON = [
    path
    for part in ("common", "pytorch", "debug")
    for path in sorted((FOLDER / "transformer_engine" / part).rglob("*.py"))
]


def names_in_the_wheel() -> dict[str, set[str]]:
    """Members that the wheel reads as `tex.NAME.MEMBER` or, after an import, as `NAME.MEMBER`."""
    used: dict[str, set[str]] = defaultdict(set)
    for path in PYTHON:
        tree = ast.parse(path.read_text())
        imported = {
            alias.asname or alias.name: alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "transformer_engine_torch"
            for alias in node.names
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            if isinstance(node.value, ast.Name) and node.value.id in imported:
                used[imported[node.value.id]].add(node.attr)
            elif isinstance(node.value, ast.Attribute) and ast.unparse(node.value.value) == "tex":
                used[node.value.attr].add(node.attr)
    return {
        name: {member for member in members if not member.startswith("__")}
        for name, members in used.items()
        if name[0].isupper()  # the others are submodules and functions
    }


def test_every_enumeration_and_member_that_the_wheel_reads_is_in_the_table() -> None:
    used = names_in_the_wheel()
    assert len(used) >= 10 and len(used["NVTE_QKV_Layout"]) > 20
    missing = {f"{name}.{member}" for name, members in used.items() for member in members - set(MEMBERS.get(name, ()))}
    assert missing == set()


def test_values_are_unique_within_an_enumeration() -> None:
    for name, members in MEMBERS.items():
        assert len(set(members.values())) == len(members), name
