"""The command `acc-megatron` inside the test process, for promises that need no process of their own."""

import contextlib
import io
import subprocess
import sys
from unittest import mock


def acc_in_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `acc-megatron` with these arguments; its exit code and what it prints, as of a finished process."""
    words = ["acc-megatron", *map(str, arguments)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with mock.patch.object(sys, "argv", words), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        from acc_megatron.cli import main

        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
