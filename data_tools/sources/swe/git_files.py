"""Complete files at a commit, read from a local git repository without a checkout.

Only the object store of the repository is used, together with an empty git folder of our own. The configuration,
hooks, attributes and remotes of the repository have no effect, so nothing in it can run and nothing is fetched. Paths
are labels of blobs and are never opened. The full hash of the commit also proves that the repository is the right one.
"""

import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from functools import cache, cached_property, lru_cache
from pathlib import Path

from acc_megatron.errors import EnvironmentProblem

MAX_FILE_BYTES = 4 << 20
MAX_LISTING_BYTES = 256 << 20
SECONDS = 60.0
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # SHA-1 or SHA-256
_REGULAR = (b"100644", b"100755")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # the file itself is stored elsewhere
_SHA256_CONFIG = "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = sha256\n"
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "LC_ALL": "C",
}


class GitError(Exception):
    """Git failed, wrote too much output, or took too long."""


class GitRepository:
    """A repository on this machine."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self._folder = folder

    @cached_property
    def names(self) -> list[str]:
        """Lower-case names: `owner/name` of remotes, then `owner/name`, `parent/folder` and `name` of the folder."""
        arguments = ["config", "--file", str(self._folder / "config"), "--get-regexp", r"^remote\..*\.url$"]
        try:
            lines = _git(arguments, None, 1 << 20).decode(errors="replace").splitlines()
        except GitError:  # no remote
            lines = []
        urls = [line.partition(" ")[2].strip().removesuffix("/").removesuffix(".git") for line in lines]
        remotes = ["/".join(re.split(r"[/:]", url)[-2:]) for url in urls]
        folders: list[str] = []
        for root in (self.root.absolute(), self.root.resolve()):  # a link has the name that its user gave it
            name = (root.parent.name if root.name == ".git" else root.name).removesuffix(".git")
            folders += [name.replace("__", "/", 1), f"{root.parent.name}/{name}", name]
        return list(dict.fromkeys(name.lower() for name in (*remotes, *folders)))

    def files(self, commit: str) -> "CommitFiles | None":
        """The files at a commit, given by its full hash; None if the repository lacks it."""
        if not _HASH.fullmatch(commit):
            return None
        objects = self._folder / "objects"
        try:
            _git(["cat-file", "-e", f"{commit}^{{commit}}"], objects, 0, name=commit)
            arguments = ["ls-tree", "-r", "-l", "-z", "--full-tree", commit]
            listing = _git(arguments, objects, MAX_LISTING_BYTES, name=commit)
        except GitError:
            return None
        return CommitFiles(objects, listing)


class CommitFiles(Mapping[str, str]):
    """Path -> complete text of the regular files of a commit.

    Files over MAX_FILE_BYTES are left out. Binary files and git LFS pointers are listed but raise KeyError.
    """

    def __init__(self, objects: Path, listing: bytes) -> None:
        self._objects = objects
        self._blobs = dict(_listed(listing))
        self._read = lru_cache(maxsize=32)(self._text)  # of at most MAX_FILE_BYTES each

    def __getitem__(self, path: str) -> str:
        text = self._read(self._blobs[path])
        if text is None:
            raise KeyError(path)
        return text

    def __iter__(self) -> Iterator[str]:
        return iter(self._blobs)

    def __len__(self) -> int:
        return len(self._blobs)

    def _text(self, blob: str) -> str | None:
        try:
            data = _git(["cat-file", "blob", blob], self._objects, MAX_FILE_BYTES, name=blob)
            return None if b"\0" in data or data.startswith(_LFS_POINTER) else data.decode()
        except (GitError, UnicodeDecodeError):
            return None


def git_folder(path: Path) -> Path | None:
    """The git folder of a repository, given by its work tree, its `.git` or a bare repository; None for other paths.

    A work tree of `git worktree` leads to its repository.
    """
    folder = path / ".git" if (path / ".git").exists() else path
    if folder.is_file():
        if folder.name != ".git" or not (first := _first_line(folder)).startswith("gitdir: "):
            return None
        folder = folder.parent / first.removeprefix("gitdir: ")
    if (folder / "commondir").is_file():
        folder = folder / _first_line(folder / "commondir")
    is_repository = (folder / "objects").is_dir() and (folder / "refs").is_dir() and (folder / "HEAD").is_file()
    return folder.resolve() if is_repository else None


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(4096).strip()


def _listed(listing: bytes) -> Iterator[tuple[str, str]]:
    """Path and blob of every regular file within the size limit; links and submodules are left out."""
    for entry in listing.split(b"\0")[:-1]:
        head, _, path = entry.partition(b"\t")
        mode, _, blob, size = head.split()
        if mode in _REGULAR and size.isdigit() and int(size) <= MAX_FILE_BYTES:
            try:
                yield path.decode(), blob.decode()
            except UnicodeDecodeError:  # the path cannot be a label
                continue


@cache
def _own_folder(*, sha256: bool) -> tempfile.TemporaryDirectory[str]:
    """An empty bare repository with one object format, so that git reads no other configuration."""
    folder = tempfile.TemporaryDirectory(prefix="acc-megatron-git-")
    for name in ("objects", "refs"):
        (Path(folder.name) / name).mkdir()
    (Path(folder.name) / "HEAD").write_text("ref: refs/heads/none\n")
    if sha256:
        (Path(folder.name) / "config").write_text(_SHA256_CONFIG)
    return folder


def _git(arguments: list[str], objects: Path | None, max_bytes: int, *, name: str = "") -> bytes:
    """The output of a git command, at most `max_bytes`, within SECONDS; `name` is the hash of the object."""
    folder = _own_folder(sha256=len(name) == 64).name
    environment = _ENVIRONMENT | {"GIT_DIR": folder, "PATH": os.environ.get("PATH", os.defpath)}
    if objects is not None:
        environment["GIT_OBJECT_DIRECTORY"] = str(objects)
    command = ["git", "--no-pager", "-c", "core.hooksPath=/dev/null", *arguments]
    null = subprocess.DEVNULL
    try:
        process = subprocess.Popen(command, env=environment, stdin=null, stdout=subprocess.PIPE, stderr=null)
    except OSError as error:
        raise EnvironmentProblem(f"git cannot start: {error.strerror}; install git to read repositories") from None
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    with process:
        assert process.stdout is not None
        output = process.stdout.read(max_bytes + 1)
        if len(output) > max_bytes:
            process.kill()
    timer.cancel()
    if process.returncode or len(output) > max_bytes:
        raise GitError(f"git {arguments[0]} ended with {process.returncode} after {len(output)} bytes")
    return output
