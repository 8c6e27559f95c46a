"""The error for a missing package: its name, and a command that installs it in this environment.

Versions come from the metadata of the installed distribution, that is from setup.py. This module imports nothing but
`errors`, so that every part can use it.
"""

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from acc_megatron.errors import EnvironmentProblem

DISTRIBUTION = "acc-megatron"
CHECKOUT = Path(__file__).resolve().parents[1]
# modules whose distribution is not called like the module, with '-' for '_'
DISTRIBUTIONS = {
    "megatron": "megatron-core",
    "umap": "umap-learn",
    "google": "protobuf",
    "kubernetes": "nemo-run",  # a dependency of nemo-run[kubeflow]
}
# Only a data file of this package is used, so it is installed without its dependencies and not listed in setup.py.
VOCABULARY = "dashscope==2.0.2"
_REQUIREMENT = re.compile(r"(?P<package>(?P<name>[\w.-]+)[^;]*)(?P<marker>;.*)?")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)""")


@dataclass(frozen=True)
class Requirement:
    """A requirement of the installed distribution."""

    name: str  # normalised: lowercase, '-' for '_'
    package: str  # what pip installs, for example "lm-eval==0.4.13"
    extra: str  # "" for the base installation
    needs_python_312: bool  # megatron-core runs on Python 3.11, but its metadata refuses it

    @property
    def is_refused_here(self) -> bool:
        """Whether pip refuses the package because of the version of this Python."""
        return self.needs_python_312 and sys.version_info < (3, 12)


def requirements() -> Iterator[Requirement]:
    """The requirements of the base installation and of every extra, from setup.py; none without an installation."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        lines = []
    for line in lines:
        found = _REQUIREMENT.match(line)
        assert found is not None, line
        marker = found["marker"] or ""
        extra = _EXTRA.search(marker)
        name = found["name"].lower().replace("_", "-")
        yield Requirement(name, found["package"].replace(" ", ""), extra[1] if extra else "", '"3.12"' in marker)


def is_installed(module: str) -> bool:
    """Whether a top-level module can be found; does not import it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # ValueError: a loaded module without a spec, or None in sys.modules
        return False


def missing_package(module: str, purpose: str, *, otherwise: str = "") -> EnvironmentProblem:
    """The error for a module that `purpose` needs and that cannot be imported; `otherwise` names what works without."""
    alternative = f", or {otherwise}" if otherwise else ""
    return EnvironmentProblem(
        f"{purpose} needs the package {_distribution(module)}, which is not installed: run {install_command(module)}"
        f"{alternative}"
    )


def missing_module(error: ModuleNotFoundError, purpose: str = "this command") -> EnvironmentProblem | None:
    """The error for a failed import; None if the module is one of ours, which is a bug and not a missing package."""
    module = (error.name or "").partition(".")[0]
    if module in ("", "acc_megatron"):
        return None
    if _find(_distribution(module)) is None:
        check = f"{shlex.quote(sys.executable)} -m pip check"
        return EnvironmentProblem(
            f"the module {module} is missing, which an installed package imports: run {check} to list packages without "
            "their dependencies, then install those"
        )
    return missing_package(module, purpose)


def install_command(module: str) -> str:
    """A shell command that installs the package of a module in this environment, in the version of setup.py."""
    name = _distribution(module)
    if VOCABULARY.startswith(f"{name}=="):
        return f"{_pip()} --no-deps {VOCABULARY}"
    found = _find(name)
    if found is None:
        return install_packages([name])
    if found.extra:
        return install_extra(found.extra)
    if found.is_refused_here:
        return f"{_pip()} --no-deps --ignore-requires-python {shlex.quote(found.package)}"
    return install_packages([found.package])


def install_extra(extra: str) -> str:
    """A shell command that installs an extra; in a checkout [launch] has an environment of its own."""
    if extra == "launch" and (CHECKOUT / "Makefile").is_file():
        return f"make -C {shlex.quote(str(CHECKOUT))} .venv-launch"
    return install_packages([found.package for found in requirements() if found.extra == extra])


def install_packages(packages: Iterable[str]) -> str:
    """A shell command that installs packages, for example "lm-eval==0.4.13", in this environment."""
    return " ".join([_pip(), *map(shlex.quote, packages)])


def _distribution(module: str) -> str:
    return DISTRIBUTIONS.get(module, module.replace("_", "-"))


def _find(name: str) -> Requirement | None:
    if VOCABULARY.startswith(f"{name}=="):
        return Requirement(name, VOCABULARY, "", needs_python_312=False)
    found = [one for one in requirements() if one.name == name.lower() and one.extra != "dev"]
    return min(found, key=lambda one: one.extra, default=None)


def _pip() -> str:
    python = shlex.quote(sys.executable)
    prepare = "" if is_installed("pip") else f"{python} -m ensurepip && "
    return f"{prepare}{python} -m pip install"
