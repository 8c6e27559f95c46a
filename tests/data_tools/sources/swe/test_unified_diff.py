"""Applying a patch gives the result of `git apply`, or an error with a reason."""

import difflib
import random
import subprocess
from pathlib import Path

import pytest

from acc_megatron.data_tools.sources.swe.reader import patched_files
from acc_megatron.data_tools.sources.swe.unified_diff import PatchError, apply_patch


def diff(path: str, old: str, new: str, context: int = 3) -> str:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}", n=context
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def edited(text: str, generator: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    for _ in range(generator.randint(1, 6)):
        place = generator.randrange(len(lines) + 1)
        lines[place : place + generator.randint(0, 3)] = [f"new {generator.random()}\n"] * generator.randint(0, 3)
    result = "".join(lines)
    return result.removesuffix("\n") if generator.random() < 0.3 else result


def git_apply(folder: Path, files: dict[str, str], patch: str) -> dict[str, str] | None:
    """The result of git; None if it refuses the patch."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, newline="")
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    done = subprocess.run(command, cwd=folder, input=patch.encode(), capture_output=True, check=False)
    if done.returncode:
        return None
    return {str(p.relative_to(folder)): p.read_bytes().decode() for p in folder.rglob("*") if p.is_file()}


def test_random_edits_apply_as_git_applies_them(tmp_path: Path) -> None:
    generator = random.Random(5)
    for number in range(120):
        old = "".join(f"line {generator.randrange(9)}\n" for _ in range(generator.randint(1, 40)))
        new = edited(old, generator)
        if old == new or not new:
            continue
        patch = diff("src/a.py", old, new, generator.randint(1, 3))
        moved = "top\n" * generator.choice([0, 0, 2]) + old + "end\n" * generator.choice([0, 0, 2])
        expected = git_apply(tmp_path / str(number), {"src/a.py": moved}, patch)
        if expected is None:
            with pytest.raises(PatchError):
                apply_patch(patch, {"src/a.py": moved})
        else:
            assert apply_patch(patch, {"src/a.py": moved}) == expected, patch


def test_a_patch_creates_removes_and_renames_files(tmp_path: Path) -> None:
    files = {"gone.py": "a\nb\n", "old.py": "1\n2\n3\n"}
    patch = (
        "diff --git a/made.py b/made.py\nnew file mode 100644\n--- /dev/null\n+++ b/made.py\n@@ -0,0 +1,2 @@\n+x\n+y\n"
        "diff --git a/gone.py b/gone.py\ndeleted file mode 100644\n--- a/gone.py\n+++ /dev/null\n"
        "@@ -1,2 +0,0 @@\n-a\n-b\n"
        "diff --git a/old.py b/new.py\nsimilarity index 60%\nrename from old.py\nrename to new.py\n"
        "--- a/old.py\n+++ b/new.py\n@@ -1,3 +1,3 @@\n 1\n-2\n+two\n 3\n"
    )
    found = apply_patch(patch, files)
    assert found == {"made.py": "x\ny\n", "gone.py": None, "old.py": None, "new.py": "1\ntwo\n3\n"}
    after = git_apply(tmp_path, files, patch)
    assert after == {path: text for path, text in found.items() if text is not None}


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ("no patch at all", "empty_patch"),
        ("--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n-b\n+c\n", "does_not_apply"),
        ("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n+c\n", "malformed"),
        ("--- a/x\n+++ b/x\n@@ -1,1 +1,1 @@\n*a\n+c\n", "malformed"),
        ("--- a/x\n+++ b/x\n", "malformed"),
        ("--- a/y\n+++ b/y\n@@ -1,1 +1,1 @@\n-a\n+c\n", "file_missing"),
        ("--- /dev/null\n+++ b/x\n@@ -0,0 +1,1 @@\n+c\n", "file_exists"),
        ("--- a/x\n+++ /dev/null\n@@ -2,1 +0,0 @@\n-a\n", "does_not_apply"),
        ("diff --git a/x b/x\nGIT binary patch\nliteral 0\n", "binary"),
    ],
)
def test_a_patch_that_does_not_apply_is_refused_with_a_reason(patch: str, reason: str) -> None:
    with pytest.raises(PatchError) as error:
        apply_patch(patch, {"x": "a\nz\n"})
    assert error.value.reason == reason


def test_quoted_file_names_are_read_as_git_writes_them(tmp_path: Path) -> None:
    names = ["naïve ü.py", 'a "b".py', "tab\tname.py", "back\\slash.py", "漢字.py", "plain name.py"]
    for name in [*names, "alt é.py"]:
        (tmp_path / name).write_text(f"one {name}\n")
    for arguments in (["init", "-q"], ["add", "."], ["-c", "user.email=x", "-c", "user.name=x", "commit", "-qm", "1"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    for name in names:
        (tmp_path / name).write_text("two\n")
    (tmp_path / "alt é.py").rename(tmp_path / "neu é.py")
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    command = ["git", "-C", str(tmp_path), "-c", "core.quotePath=true", "diff", "--cached", "--find-renames"]
    patch = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert r'"a/na\303\257ve' in patch
    expected: dict[str, str | None] = dict.fromkeys(names, "two\n")
    expected |= {"alt é.py": None, "neu é.py": "one alt é.py\n"}
    assert apply_patch(patch, {name: f"one {name}\n" for name in [*names, "alt é.py"]}) == expected
    assert sorted(patched_files(patch)) == sorted([*names, "alt é.py"])


def test_context_lines_must_match_exactly() -> None:
    patch = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    assert apply_patch(patch, {"x": "a\nb\n"}) == {"x": "a\nc\n"}
    for text in ("a \nb\n", "a\r\nb\r\n", "a\nb"):
        with pytest.raises(PatchError, match="does_not_apply"):
            apply_patch(patch, {"x": text})
