"""Runs one program and writes the resources that it used; a separate script without imports of this package.

Linux counts the memory of the starting process in the peak of the started program, so the starting process must be
small.
"""

import json
import os
import subprocess
import sys
import time


def main() -> None:
    """Run `argv[2:]`, discard its stdout, and write its exit code, seconds and peak KiB to the file `argv[1]`."""
    start = time.monotonic()
    process = subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - start
    result = {
        "exit_code": process.returncode,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": wall,
        "peak_kib": usage.ru_maxrss,
    }
    with open(sys.argv[1], "w", encoding="utf-8") as file:  # noqa: PTH123 - importing pathlib would increase the memory of this process
        json.dump(result, file)


if __name__ == "__main__":
    main()
