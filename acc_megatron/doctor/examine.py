"""All checks of the doctor, in the order of its table; a check that lacks a package of its own becomes a finding."""

import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acc_megatron.doctor.finding import Finding
from acc_megatron.doctor.probe import probe
from acc_megatron.errors import AccError
from acc_megatron.optional import install_command, missing_module

if TYPE_CHECKING:
    from acc_megatron.config import Config

PROBED = ("torch", "triton", "megatron.core", "transformer_engine", "apex")


def examine(config: "Config | None" = None, *, gpus: int | None = None) -> list[Finding]:
    """Findings of this machine, and of one configured job on it if a config is given.

    Packages for GPUs are needed if the NVIDIA driver is installed; without a GPU a job runs on CPU and needs none.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        facts = dict(zip(PROBED, pool.map(probe, PROBED), strict=True))
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("python", _python),
        ("acc-megatron", _names),
        ("python packages", _versions),
        ("qwen3 vocabulary", _vocabulary),
        ("imports", lambda: _imports(facts)),
        ("machine", lambda: _machine(facts, config)),
    ]
    if config is not None:
        checks += [
            ("configured job", lambda: _configured(config, gpus)),
            ("train.precision", lambda: _devices_for(config, len(facts["torch"].get("devices", [])))),
        ]
    return [finding for name, check in checks for finding in _guarded(name, check)]


def _guarded(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of a check, or one finding that names the package without which the check cannot run."""
    try:
        return list(check())
    except ModuleNotFoundError as error:
        problem = missing_module(error, "this check")
        if problem is None:
            raise
        return [Finding(name=name, state="wrong", found=str(problem), needed=True)]


# each check imports its own module, so that a missing package stops this check only


def _names() -> Iterable[Finding]:
    from acc_megatron.doctor.packages import check_names

    return check_names()


def _versions() -> Iterable[Finding]:
    from acc_megatron.doctor.packages import check_versions

    return check_versions()


def _imports(facts: dict[str, dict[str, Any]]) -> Iterable[Finding]:
    from acc_megatron.doctor.machine import has_driver
    from acc_megatron.doctor.packages import check_imports

    return check_imports(facts, driver=has_driver())


def _machine(facts: dict[str, dict[str, Any]], config: "Config | None") -> Iterable[Finding]:
    from acc_megatron.doctor.machine import check_machine

    return check_machine(facts["torch"], Path(config.train.run_dir) if config else Path.cwd())


def _configured(config: "Config", gpus: int | None) -> Iterable[Finding]:
    from acc_megatron.doctor.configured_job import check_configured

    return check_configured(config, gpus)


def _python() -> Iterator[Finding]:
    yield Finding(
        name="python",
        state="ok" if sys.version_info >= (3, 11) else "wrong",
        found=f"{platform.python_version()} at {sys.executable}",
        effect="acc-megatron cannot be imported",
        fix="install Python 3.11 or newer",
        needed=True,
    )


def _vocabulary() -> Iterator[Finding]:
    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer

    name = "qwen3 vocabulary"
    try:
        tokenizer = load_tokenizer("qwen3")
    except AccError as error:
        fix = f"{install_command('dashscope')}, or give --tokenizer a Hugging Face folder with tokenizer.json"
        effect = "--tokenizer qwen3 fails"
        yield Finding(name=name, state="missing", found=str(error), effect=effect, fix=fix)
        return
    yield Finding(name=name, state="ok", found=f"{len(tokenizer.ranks):,} byte sequences")


def _devices_for(config: "Config", num_devices: int) -> Iterator[Finding]:
    if config.train.precision != "float32" and num_devices == 0:
        yield Finding(
            name="train.precision",
            state="wrong",
            found=f"{config.train.precision} without a GPU",
            effect="the CPU emulates this precision: results are correct, but training is slow",
            fix="run on a GPU node, or set train.precision=float32",
        )
