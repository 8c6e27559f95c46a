"""Small faults in lines that checks execute: a flipped comparison, a constant off by one, swapped arguments, ..."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

COMPARISONS = {
    "<": ("<=", ">"), "<=": ("<", ">="), ">": (">=", "<"), ">=": (">", "<="), "==": ("!=", ">"), "!=": ("==", ">"),
    "is not": ("is", "=="), "is": ("is not", "!="), "not in": ("in", "=="), "in": ("not in", "=="),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One faulty line; `attempt` is another wrong line that an agent might try first."""

    line: int  # 1-based
    function: str
    right: str
    wrong: str
    attempt: str
    thought: str

    def inject(self, text: str) -> str:
        """The text of the file with the fault."""
        return replace_line(text, self.line, self.wrong)


@dataclass(frozen=True, slots=True)
class Change:
    """A span of one line (UTF-8 byte columns), its wrong text, a second wrong text, and a description."""

    line: int
    start: int
    end: int
    wrong: str
    attempt: str
    thought: str


def replace_line(text: str, line: int, new: str) -> str:
    """The text with line `line` (1-based) replaced."""
    lines = text.split("\n")
    lines[line - 1] = new
    return "\n".join(lines)


@cache
def faults(text: str, covered: frozenset[int]) -> tuple[Fault, ...]:
    """Every fault that can be injected into covered lines inside of functions."""
    lines = text.split("\n")
    found: dict[tuple[int, str], Fault] = {}
    for function, node in function_nodes(ast.parse(text)):
        for change in changes(node, lines):
            if change.line in covered:
                right = lines[change.line - 1]
                wrong, attempt = (splice(right, change, new) for new in (change.wrong, change.attempt))
                fault = Fault(change.line, function, right, wrong, attempt, change.thought)
                if wrong != right:
                    found[change.line, wrong] = fault
    return tuple(sorted(found.values(), key=lambda fault: (fault.line, fault.wrong)))


def splice(line: str, change: Change, new: str) -> str:
    """The line with the span of the change replaced."""
    raw = line.encode()
    return (raw[: change.start] + new.encode() + raw[change.end :]).decode()


def function_nodes(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Expressions in function bodies; `while` loops are excluded, because a fault could make them endless."""

    def walk(node: ast.AST, function: str) -> Iterator[tuple[str, ast.expr]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.While | ast.JoinedStr):  # before 3.12, columns in f-strings are wrong
                continue
            if isinstance(child, ast.FunctionDef):
                for statement in child.body:
                    yield from walk(statement, child.name)
                continue
            if function and isinstance(child, ast.expr) and child.lineno == child.end_lineno:
                yield function, child
            yield from walk(child, function)

    return walk(tree, "")


def changes(node: ast.expr, lines: list[str]) -> Iterator[Change]:
    """The possible changes of one expression."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from between(node.left, node.comparators[0], lines, lambda op: COMPARISONS.get(op), "comparison")
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield from between(node.left, node.right, lines, {"+": ("-", "*"), "-": ("+", "*")}.get, "sign")
    elif isinstance(node, ast.BoolOp) and len(node.values) == 2:
        flip = {"and": ("or", "and not"), "or": ("and", "or not")}
        yield from between(node.values[0], node.values[1], lines, flip.get, "logical operator")
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield from constant(node, node.value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        thought = "the condition lost its `not`"
        yield Change(node.lineno, node.col_offset, node.operand.col_offset, "", "None is not ", thought)
    elif isinstance(node, ast.Call) and len(node.args) >= 2:
        yield from swap(node.args[0], node.args[1], lines)


def between(
    left: ast.expr,
    right: ast.expr,
    lines: list[str],
    choose: Callable[[str], tuple[str, str] | None],
    what: str,
) -> Iterator[Change]:
    """Change the operator between two operands."""
    if left.end_lineno != right.lineno or left.end_col_offset is None:
        return
    gap = lines[right.lineno - 1].encode()[left.end_col_offset : right.col_offset].decode()
    match = re.fullmatch(r"(\)*\s*)(.*?)(\s*\(*)", gap)
    others = choose(match[2]) if match else None
    if match and others:
        start = left.end_col_offset + len(match[1])
        thought = f"the {what} should be `{match[2]}`, not `{others[0]}`"
        yield Change(right.lineno, start, start + len(match[2]), *others, thought)


def constant(node: ast.Constant, value: int) -> Iterator[Change]:
    """Negate a boolean or increase a number by one."""
    wrong, attempt = (str(not value), "None") if isinstance(value, bool) else (str(value + 1), str(value + 2))
    assert node.end_col_offset is not None
    thought = f"the constant should be `{value}`, not `{wrong}`"
    yield Change(node.lineno, node.col_offset, node.end_col_offset, wrong, attempt, thought)


def swap(first: ast.expr, second: ast.expr, lines: list[str]) -> Iterator[Change]:
    """Swap the first two arguments of a call."""
    if first.lineno != second.end_lineno or second.end_col_offset is None or first.end_col_offset is None:
        return
    raw = lines[first.lineno - 1].encode()
    one, two = raw[first.col_offset : first.end_col_offset], raw[second.col_offset : second.end_col_offset]
    middle = raw[first.end_col_offset : second.col_offset]
    thought = f"the arguments `{one.decode()}` and `{two.decode()}` are in the wrong order"
    swapped, doubled = (two + middle + one).decode(), (one + middle + one).decode()
    yield Change(first.lineno, first.col_offset, second.end_col_offset, swapped, doubled, thought)
