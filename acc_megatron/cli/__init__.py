"""The entry point of the command `acc-megatron`: turns errors that a user can fix into one line and an exit code."""

import errno
import sys

from acc_megatron.errors import AccError
from acc_megatron.observe.library_warnings import LIBRARY_WARNINGS
from acc_megatron.optional import missing_module

# errors of the file system that a user can fix; any other keeps its traceback, because it is a bug
FILE_ERRORS = {
    errno.EACCES: "permission denied: run as the owner of the path, or choose another path",
    errno.EPERM: "permission denied: run as the owner of the path, or choose another path",
    errno.EROFS: "the file system is read-only: choose another path",
    errno.EEXIST: "a file exists where a folder is needed: choose another path",
    errno.ENOENT: "there is no such file or folder: check the path",
    errno.EISDIR: "this is a folder, and a file is needed: give the name of a file",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another path",
    errno.ENAMETOOLONG: "the name is too long: choose another path",
    errno.ENOSPC: "the disk is full: free space, or choose another path",
    errno.EDQUOT: "the disk quota is used up: free space, or choose another path",
    errno.EFBIG: "the file would be larger than the limit (ulimit -f): raise it, or choose another path",
}


def main() -> None:
    """Run a verb; an error that the user can fix is printed as one line on stderr and sets the exit code."""
    LIBRARY_WARNINGS.install()
    try:
        from acc_megatron.cli.app import app

        app()
    except AccError as error:
        _exit(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        problem = missing_module(error)
        if problem is None:
            raise
        if sys.argv[1:2] == ["doctor"]:
            _examine_without_options()
        _exit(str(problem), problem.exit_code)
    except OSError as error:
        if error.errno not in FILE_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _exit(f"{where}{FILE_ERRORS[error.errno]}", AccError.exit_code)


def _examine_without_options() -> None:
    """`doctor` where even the packages of the command line are missing."""
    from acc_megatron.doctor.examine import examine
    from acc_megatron.doctor.finding import print_findings

    print_findings(examine(), as_json=False)


def _exit(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
