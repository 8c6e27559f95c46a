"""The example in the README of the kernels runs as it stands."""

import re
import sys

from commands import ROOT, run_command


def test_the_example_runs() -> None:
    text = (ROOT / "kernels" / "README.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.S)
    assert examples
    for example in examples:
        done = run_command([sys.executable, "-c", example], timeout=60)
        assert done.returncode == 0, done.stderr
