"""The lines of a file are read, by number, from the outputs of the shell commands that print it."""

import subprocess
from pathlib import Path

import pytest

from acc_megatron.data_tools.sources.formats.log_format import Step
from acc_megatron.data_tools.sources.swe.printed_lines import printed_lines
from acc_megatron.data_tools.sources.swe.seen_files import seen_files

LINES = [f"x{number} = {number}" if number % 4 else "" for number in range(1, 41)]
KNOWN = {
    "cat a.py": [*range(1, 41)],
    "cat -n a.py": [*range(1, 41)],
    "nl -ba a.py": [*range(1, 41)],
    "head -7 a.py": [*range(1, 8)],
    "head -n 7 a.py": [*range(1, 8)],
    "sed -n '5,9p' a.py": [*range(5, 10)],
    "sed -n 5p a.py": [5],
    "sed -n '35,$p' a.py": [*range(35, 41)],
    "sed -n '35,99p' a.py 2>/dev/null": [*range(35, 41)],
    "tail -n +38 a.py": [38, 39, 40],
    "cat a.py | head -3": [1, 2, 3],
    "cat a.py | sed -n '5,9p' | head -n2": [5, 6],
    "cat -n a.py | sed -n '5,9p'": [*range(5, 10)],
    "nl -ba a.py|sed -n '5,9p'": [*range(5, 10)],
    "cat -n a.py | tail -2": [39, 40],
    "cat -n a.py | grep -A1 'x2 ='": [2, 3],
    "grep -n 'x[23] =' a.py": [2, 3],
    "grep -n -A 2 -B1 'x9' a.py | head -20": [8, 9, 10, 11],
    "grep -n 'x9' a.py -A 2": [9, 10, 11],
    "grep -nE -C1 'x(3|21) =' a.py": [2, 3, 4, 20, 21, 22],
}


@pytest.mark.parametrize("command", KNOWN)
def test_commands_that_print_a_file_tell_its_lines(tmp_path: Path, command: str) -> None:
    (tmp_path / "a.py").write_text("\n".join(LINES) + "\n")
    shell = ["bash", "-c", command]
    output = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=10).stdout
    expected = {number: LINES[number - 1] for number in KNOWN[command]}
    for prefix in ("", "cd /testbed && "):
        found = printed_lines(prefix + command, output)
        assert found is not None and found.lines == expected
        assert found.path == ("/testbed/a.py" if prefix else "a.py")
        assert found.is_whole == (command in ("cat a.py", "cat -n a.py", "nl -ba a.py"))
    (seen,) = seen_files([Step(tool="bash", arguments={"command": command}, output=output)]).values()
    assert seen.lines == expected


@pytest.mark.parametrize(
    "command",
    [
        "cat a.py | grep x", "cat a.py | sed 's/x/y/'", "cat a.py | tail -3", "cat a.py b.py", "cat a.py && cat b.py",
        "cat a.py; ls", "cat a.py > b.py", "cat a.py | wc -l", "grep x a.py", "grep -nc x a.py", "grep -no x a.py",
        "grep -rn x src", "grep -n x", "head -c 9 a.py", "cat -n a.py | grep -c x", "cat -n a.py | sed 's/x/y/'",
        "echo cat a.py", "python a.py", "cat 'a.py", "", "|", "cat", "cat -n", "cat -A a.py", "sed '3d' a.py",
    ],
)  # fmt: skip
def test_other_commands_tell_nothing(command: str) -> None:
    assert printed_lines(command, "1:x1 = 1\n") is None


@pytest.mark.parametrize("output", ["", "cat: a.py: No such file or directory\n", "<returncode>1</returncode>\n"])
def test_an_error_is_no_file(output: str) -> None:
    assert printed_lines("cat a.py", output) is None


def test_more_lines_than_a_command_prints_are_not_the_file() -> None:
    assert printed_lines("sed -n '5,6p' a.py", "a\nb\nc\n") is None


@pytest.mark.parametrize(
    "change",
    [
        "cat > fix.py << 'EOF'\nwith open('pkg/a.py', 'w') as file:\n    file.write(new)\nEOF",
        'python - << \'EOF\'\nopen("pkg/a.py", "w").write(text)\nEOF',
        "python -c \"import pathlib; pathlib.Path('pkg/a.py').write_text('')\"",
        "mv new.py pkg/a.py",
        "perl -pi -e 's/a/b/' pkg/a.py",
        "git restore pkg/a.py",
        "edit_file_by_replace('pkg/a.py', to_replace='a', new_content='b')",
    ],
)
def test_lines_that_are_shown_after_a_script_may_have_changed_the_file_are_not_used(change: str) -> None:
    commands = [("sed -n 1p pkg/a.py", "old\n"), (change, ""), ("sed -n 2p pkg/a.py", "new\n")]
    steps = [Step(tool="bash", arguments={"command": command}, output=output) for command, output in commands]
    assert seen_files(steps)["pkg/a.py"].lines == {1: "old"}


def test_a_file_that_the_run_creates_is_no_file_of_the_repository() -> None:
    window = "[File: new.py (1 lines total)]\n1:\n"
    assert not seen_files([Step(tool="bash", arguments={"command": "create new.py"}, output=window)])


def test_the_windows_of_openhands_number_their_lines_in_another_way() -> None:
    window = "[File: /workspace/pkg/a.py (2 lines total)]\n(this is the beginning of the file)\n1|a\n2|b\n"
    steps = [Step(tool="run_ipython", arguments={"code": "open_file('/workspace/pkg/a.py')"}, output=window)]
    (seen,) = seen_files(steps).values()
    assert (seen.lines, seen.is_complete) == ({1: "a", 2: "b"}, True)
