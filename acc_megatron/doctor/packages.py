"""Checks of packages: their versions, whether they can be imported, and other copies of acc-megatron."""

import importlib.util
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

import acc_megatron
from acc_megatron.doctor.finding import Finding, State
from acc_megatron.optional import install_command, install_extra, install_packages

MEGATRON_CORE = "0.19.2"
# the effect of a missing extra, by its name in setup.py
EXTRAS = {
    "fast": "convert encodes with tiktoken, which is slower",
    "ray": "convert --ray fails",
    "dedupe": "compile --dedupe-questions, --dedupe-contexts and --decontaminate fail",
    "launch": "launch fails; the scripts in examples/launch need no package",
    "eval": "benchmarks of lm-eval fail",
    "wandb": "no logging to Weights & Biases",
    "mlflow": "no logging to MLflow",
    "resilience": "no restart inside a job by nvidia-resiliency-ext; torchrun restarts all its workers",
    "analyze": "analyze overlap draws no UMAP",
    "remote": "compile and convert cannot read s3:// and gs://",
    "gpu": "no training on GPUs, no FP8",
}


def requirements() -> Iterator[tuple[str, Requirement]]:
    """The requirements of the installed distribution: (extra or "", requirement)."""
    for line in metadata.requires("acc-megatron") or ():
        requirement = Requirement(line)
        extras = [extra for extra in EXTRAS if requirement.marker and requirement.marker.evaluate({"extra": extra})]
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield "", requirement
        elif extras:
            yield extras[0], requirement


def check_versions() -> Iterator[Finding]:
    """One finding for the base installation and one per extra."""
    yield _python_packages([need for extra, need in requirements() if not extra])
    for extra, effect in EXTRAS.items():
        wanted = [need for name, need in requirements() if name == extra]
        problems = [problem for need in wanted if (problem := _problem(need))]
        if wanted:
            absent = all(_version(need.name) is None for need in wanted)
            yield Finding(
                name=f"extra [{extra}]",
                state="ok" if not problems else "missing" if absent else "wrong",
                found="; ".join(problems) or ", ".join(f"{need.name} {_version(need.name)}" for need in wanted),
                effect=effect,
                fix=install_extra(extra),
            )


def _python_packages(wanted: list[Requirement]) -> Finding:
    found = {need: problem for need in wanted if (problem := _problem(need))}
    problems = list(found.values())
    return Finding(
        name="python packages",
        state="wrong" if problems else "ok",
        found="; ".join(problems) or f"all {len(wanted)} of the base installation",
        effect="imports fail, or untested versions are used",
        fix=install_packages(f"{need.name}{need.specifier}" for need in found),
        needed=True,
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _problem(need: Requirement) -> str | None:
    version = _version(need.name)
    if version is None:
        return f"no {need.name}"
    # a vendor's build is a pre-release of its version, for example 2.13.0a0+nv26.06
    base = version.split("+")[0].split("a0")[0]
    return (
        None if need.specifier.contains(base, prereleases=True) else f"{need.name} {version}, required {need.specifier}"
    )


def check_imports(facts: dict[str, dict[str, Any]], *, driver: bool) -> Iterator[Finding]:
    """Whether the packages of training can be imported; `facts` are those of `doctor.probe`, by module.

    Packages for GPUs are needed if the NVIDIA `driver` is installed.
    """
    yield from _engine(facts["torch"], facts["megatron.core"], driver)
    triton = facts["triton"]
    yield Finding(
        name="triton",
        state="wrong" if "error" in triton else "ok",
        found=triton.get("error") or triton["version"],
        effect="the masked loss uses its torch implementation",
        fix=install_command("triton"),
        needed=driver,
    )
    engine = facts["transformer_engine"]
    absent = "No module named 'transformer_engine" in engine.get("error", "")
    state: State = "ok" if "error" not in engine else "missing" if absent else "wrong"
    if state == "wrong" and _cannot_load_cuda(facts["torch"], driver):
        state = "unseen"
    broken = "megatron-core handles only ImportError and cannot be imported"
    image = "use NVIDIA's PyTorch image"
    yield Finding(
        name="transformer engine",
        state=state,
        found="not installed" if absent else engine.get("error") or engine["version"],
        effect="no training on GPUs, no FP8" if absent else broken,
        fix=image if absent else f"{image}; on a machine without GPUs uninstall transformer-engine",
        needed=driver,
    )
    yield _apex(facts["apex"])


def _engine(torch: dict[str, Any], megatron: dict[str, Any], driver: bool) -> Iterator[Finding]:
    yield Finding(
        name="torch",
        state="wrong" if "error" in torch else "ok",
        found=torch.get("error") or f"{torch['version']}, CUDA {torch['cuda_build'] or 'not built in'}",
        effect="training is not possible",
        fix=install_command("torch"),
        needed=True,
    )
    broken = "error" in megatron
    wrong = broken or megatron["version"].split("+")[0] != MEGATRON_CORE
    unseen = broken and _cannot_load_cuda(torch, driver)
    yield Finding(
        name="megatron-core",
        state="unseen" if unseen else "wrong" if wrong else "ok",
        found=megatron.get("error") or megatron["version"],
        effect="training is not possible" if broken else f"this release needs exactly version {MEGATRON_CORE}",
        fix=install_command("megatron"),
        needed=True,
    )


def _cannot_load_cuda(torch: dict[str, Any], driver: bool) -> bool:
    """Whether CUDA packages may fail to import only because the driver is missing, as while an image is built."""
    return bool(torch.get("cuda_build")) and not driver


def _apex(facts: dict[str, Any]) -> Finding:
    foreign = facts.get("named_apex") and not facts.get("fused_adam") and not facts.get("fused_weight_gradient")
    able = [name for name in ("fused_adam", "fused_weight_gradient") if facts.get(name)]
    return Finding(
        name="apex",
        state="wrong" if foreign else "ok" if able else "missing",
        found="another project of that name" if foreign else ", ".join(able) or "not installed",
        effect="megatron-core treats it as NVIDIA's"
        if foreign
        else "Transformer Engine's or torch's optimizer is used",
        fix="pip uninstall apex" if foreign else "",
    )


def check_names() -> Iterator[Finding]:
    """There must be one complete copy of this package; another project's `kernels` does no harm."""
    root = Path(acc_megatron.__file__).parent
    parts = {name: importlib.util.find_spec(f"acc_megatron.{name}") for name in ("kernels", "data_tools")}
    absent = [name for name, spec in parts.items() if spec is None]
    # the folder of a checkout on sys.path is not a second copy: the editable installation points to it
    copies = sorted({str(found) for found in _copies() if found != root})
    problem = f"no acc_megatron.{absent[0]}" if absent else f"a second copy in {copies[0]}" if copies else ""
    yield Finding(
        name="acc-megatron",
        state="wrong" if problem else "ok",
        found=problem or f"{acc_megatron.__version__} in {root}",
        effect="modules of two versions are mixed",
        fix="keep one installation: pip uninstall acc-megatron, then install it again",
        needed=True,
    )
    bare = importlib.util.find_spec("kernels")
    ours = parts["kernels"]
    if bare and ours and bare.origin and ours.origin and Path(bare.origin).resolve() != Path(ours.origin).resolve():
        found = f"another project's, in {bare.origin}; ours is acc_megatron.kernels"
        yield Finding(name="kernels", state="ok", found=found)


def _copies() -> Iterator[Path]:
    for entry in sys.path:
        folder = Path(entry or ".").resolve() / "acc_megatron"
        if (folder / "__init__.py").is_file():
            yield folder
