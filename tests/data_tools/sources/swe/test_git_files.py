"""Files at a commit are read from the objects of a repository: nothing in it runs, nothing outside it is read."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acc_megatron.common.json_rows import Row
from acc_megatron.data_tools.compile.compile import compile_inputs
from acc_megatron.data_tools.compile.inputs import discover
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.rows.row_files import rows_of
from acc_megatron.data_tools.sources.resources import Resources
from acc_megatron.data_tools.sources.swe import git_files
from acc_megatron.data_tools.sources.swe import reader as swe
from acc_megatron.data_tools.sources.swe.git_files import GitRepository, git_folder
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import EnvironmentProblem


def git(folder: Path, *arguments: str) -> str:
    identity = {f"GIT_{who}_{what}": "x@y.z" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = os.environ | identity | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", "-C", str(folder), *arguments], env=environment, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "tool"
    (folder / "lib").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "lib" / "a.py").write_text("old é\n")
    (folder / "binary").write_bytes(b"\0\1")
    (folder / "latin").write_bytes(b"\xe9")
    (folder / "link").symlink_to("/etc/passwd")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def repository(path: Path) -> GitRepository:
    folder = git_folder(path)
    assert folder is not None
    return GitRepository(path, folder)


def test_texts_are_those_of_the_commit_and_not_of_the_work_tree(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "lib" / "a.py").write_text("new\n")
    git(checkout, "commit", "-qam", "two")
    files = repository(checkout).files(commit)
    assert files is not None and files["lib/a.py"] == "old é\n"
    assert {path for path in files if path in files} == {"lib/a.py"}, "binary files and links are absent"
    with pytest.raises(KeyError):
        files["../a.py"]


def test_a_git_lfs_pointer_has_no_text(checkout: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
    (checkout / "weights.txt").write_text(pointer)
    (checkout / "lib" / "lfs.md").write_text(f"A pointer reads:\n{pointer}")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "two")
    files = repository(checkout).files(git(checkout, "rev-parse", "HEAD"))
    assert files is not None and {path for path in files if path in files} == {"lib/a.py", "lib/lfs.md"}


def test_a_repository_named_by_sha256_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "tool"
    folder.mkdir()
    git(folder, "init", "-q", "--object-format=sha256")
    (folder / "a.py").write_text("old\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    git(folder, "gc", "-q")
    commit = git(folder, "rev-parse", "HEAD")
    files = repository(folder).files(commit)
    assert len(commit) == 64 and files is not None and dict(files) == {"a.py": "old\n"}


@pytest.mark.parametrize("commit", ["0" * 40, "0" * 64, "HEAD", "", "--help", "deadbeef"])
def test_only_the_full_hash_of_a_present_commit_is_accepted(checkout: Path, commit: str) -> None:
    assert repository(checkout).files(commit) is None


def test_a_bare_clone_a_git_folder_and_a_linked_work_tree_are_repositories(checkout: Path, tmp_path: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    git(tmp_path, "clone", "-q", "--bare", str(checkout), str(tmp_path / "bare.git"))
    git(checkout, "worktree", "add", "-q", str(tmp_path / "linked"))
    for path in (tmp_path / "bare.git", tmp_path / "linked", checkout / ".git"):
        files = repository(path).files(commit)
        assert files is not None and files["lib/a.py"] == "old é\n"
    assert git_folder(tmp_path) is None


def test_nothing_in_the_repository_runs_and_its_configuration_is_ignored(checkout: Path, tmp_path: Path) -> None:
    commit, trace = git(checkout, "rev-parse", "HEAD"), tmp_path / "ran"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {trace}\n")
    script.chmod(0o755)
    missing = git(checkout, "hash-object", "-w", "binary")
    for key in ("core.fsmonitor", "core.pager", "diff.external", "core.sshCommand", "remote.origin.uploadpack"):
        git(checkout, "config", key, str(script))
    git(checkout, "config", "remote.origin.url", str(tmp_path / "elsewhere"))
    git(checkout, "config", "remote.origin.promisor", "true")
    git(checkout, "config", "extensions.partialClone", "origin")
    git(checkout, "config", "core.repositoryformatversion", "1")
    git(checkout, "config", "filter.x.smudge", str(script))
    (checkout / ".git" / "info" / "attributes").write_text("* filter=x diff=x\n")
    for hook in ("post-checkout", "reference-transaction", "pre-commit"):
        (checkout / ".git" / "hooks" / hook).symlink_to(script)
    (checkout / ".git" / "objects" / missing[:2] / missing[2:]).unlink()  # a lazy fetch would run the remote's command
    found = repository(checkout)
    files = found.files(commit)
    assert files is not None and files["lib/a.py"] == "old é\n" and "binary" not in files and found.names
    assert not trace.exists()


def test_too_much_output_or_too_much_time_is_an_error(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setattr(git_files, "MAX_FILE_BYTES", 3)
    files = repository(checkout).files(commit)
    assert files is not None and "lib/a.py" not in files
    monkeypatch.setattr(git_files, "MAX_LISTING_BYTES", 10)
    assert repository(checkout).files(commit) is None


def test_a_git_process_that_hangs_is_killed(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(git_files, "SECONDS", 0.2)
    assert repository(checkout).files("0" * 40) is None
    (tmp_path / "git").unlink()
    with pytest.raises(EnvironmentProblem, match="install git"):
        repository(checkout).files("0" * 40)


@pytest.mark.parametrize(
    ("repo", "url"),
    [
        ("own/tool", ""),  # the name of the folder
        ("work/tool", ""),  # the names of parent and folder
        ("Real/Name", "git@github.com:real/name.git"),
        ("real/name", "https://github.com/Real/Name/"),
    ],
)
def test_a_repository_is_found_by_its_remote_or_folder_name(checkout: Path, repo: str, url: str) -> None:
    if url:
        git(checkout, "config", "remote.up.url", url)
    (checkout.parent / "runs.jsonl").write_text("{}\n")
    resources = discover([checkout.parent / "runs.jsonl"], [checkout]).resources
    instance = {"instance_id": "x", "repo": repo, "base_commit": git(checkout, "rev-parse", "HEAD")}
    assert resources.files("x", instance)["lib/a.py"] == "old é\n"
    assert not resources.files("x", instance | {"repo": "other/thing"})


def test_a_repository_behind_a_link_is_found_by_the_name_of_the_link(checkout: Path) -> None:
    link = checkout.parent / "links" / "other__thing"
    link.parent.mkdir()
    link.symlink_to(checkout)
    (checkout.parent / "runs.jsonl").write_text("{}\n")
    resources = discover([checkout.parent / "runs.jsonl"], [link]).resources
    instance = {"instance_id": "x", "repo": "other/thing", "base_commit": git(checkout, "rev-parse", "HEAD")}
    assert resources.files("x", instance)["lib/a.py"] == "old é\n"
    assert not resources.files("x", instance | {"base_commit": "1" * 40})
    assert not Resources().files("x", instance)


def test_a_folder_of_repositories_provides_each_repository_and_its_other_files(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text("{}\n")
    git(tmp_path, "clone", "-q", str(checkout), str(checkout.parent / "own__second"))
    git(checkout.parent / "own__second", "remote", "remove", "origin")
    row = {"instance_id": "own__tool-12", "patch": "p"}
    for name in ("instances.jsonl", "notes.txt", "tool/in_repository.jsonl"):
        (checkout.parent / name).write_text(json.dumps(row | {"instance_id": name}))
    resources = discover([tmp_path / "runs.jsonl"], [checkout.parent]).resources
    assert list(resources.instances) == ["instances.jsonl"], "rows inside a repository are not resources"
    commit = git(checkout, "rev-parse", "HEAD")
    for repo in ("own/second", "any/tool"):
        assert resources.files("x", {"instance_id": "x", "repo": repo, "base_commit": commit})["lib/a.py"] == "old é\n"


@pytest.mark.parametrize("first", ["", "gitdir: "])
def test_a_resource_file_that_looks_like_a_git_pointer_is_not_a_repository(tmp_path: Path, first: str) -> None:
    (tmp_path / "runs.jsonl").write_text("{}\n")
    rows = tmp_path / "instances.json"
    instance = {"instance_id": "o__t-1", "repo": "o/t", "base_commit": "1" * 40, "problem_statement": "x" * 9_000}
    rows.write_text(json.dumps([instance | {"patch": "p", "files_at_base_commit": {"a.py": "x"}}]))
    assert discover([tmp_path / "runs.jsonl"], [rows]).resources.files("o__t-1") == {"a.py": "x"}
    rows.write_text(first + rows.read_text())
    assert git_folder(rows) is None


def instance_of(checkout: Path) -> dict[str, Any]:
    """A SWE-bench row at the newest commit."""
    return {
        "instance_id": "own__tool-12",
        "repo": "own/tool",
        "base_commit": git(checkout, "rev-parse", "HEAD"),
        "problem_statement": "Adding fails",
        "patch": "--- a/lib/a.py\n+++ b/lib/a.py\n@@ -1 +1 @@\n-old é\n+new\n",
    }


def test_a_run_compiles_from_swe_bench_rows_in_parquet_and_a_repository(checkout: Path, tmp_path: Path) -> None:
    instance = instance_of(checkout) | {"hints_text": None}
    pq.write_table(pa.Table.from_pylist([instance | {"instance_id": "own__tool-1"}, instance]), tmp_path / "i.parquet")
    step = {"action": "open lib/a.py", "observation": "[File: lib/a.py (1 lines total)]", "thought": "I look."}
    (tmp_path / "own__tool-12.traj").write_text(json.dumps({"trajectory": [step], "info": {}}))
    found = discover([tmp_path / "own__tool-12.traj"], [tmp_path / "i.parquet", checkout])
    (row,) = rows_of(found.files[0])
    assert isinstance(row, Row)
    trajectory = swe.read(row, found.resources)
    assert [(piece.id, piece.text) for piece in trajectory.evidence] == [("lib/a.py", "old é\n")]
    assert trajectory.notes["instance_id"] == "own__tool-12"


@pytest.mark.parametrize("carried", [False, True])
def test_a_context_is_filled_from_the_repository_for_a_resource_instance_and_for_an_embedded_one(
    checkout: Path, tmp_path: Path, tokenizer: Tokenizer, carried: bool
) -> None:
    for name, text in (("lib/b.py", "b = 1\n" * 20), ("lib/c.py", "c = 1\n" * 20), ("lib/__init__.py", "")):
        (checkout / name).write_text(text)
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "two")
    instance = instance_of(checkout)
    run = {"instance_id": "own__tool-12", "trajectory": [{"action": "ls", "observation": "lib", "thought": "I look."}]}
    rows = [run | {"instance": instance}] if carried else [instance, run]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = CompileSettings(fill_tokens={"swe": (5_000, 5_000)})
    out, repositories = tmp_path / "out", [checkout]
    compile_inputs(
        [tmp_path / "runs.jsonl"], out, agent="auto", resources=repositories, settings=settings, tokenizer=tokenizer
    )
    (triple,) = map(json.loads, (out / "triples.jsonl").read_text().splitlines())
    assert {piece["id"]: piece["filled"] for piece in triple["context"]} == {
        "lib/a.py": False,
        "lib/b.py": True,
        "lib/c.py": True,
    }
