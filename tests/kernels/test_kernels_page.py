"""The Python examples in the manual's page about kernels run."""

import re
import sys

import pytest
from support.commands import ROOT, run_command


@pytest.mark.slow
def test_the_examples_run() -> None:
    text = (ROOT / "docs" / "kernels.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(examples) == 4
    # one process: torch and transformers are imported once
    done = run_command([sys.executable, "-c", "\n".join(examples)], timeout=240)
    assert done.returncode == 0, done.stderr
