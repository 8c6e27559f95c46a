"""Packages: versions against what this release was tested with, imports that really work, names that are not ours."""

import importlib.util
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

import acc_megatron
from acc_megatron.doctor.finding import Finding, State

MEGATRON_CORE = "0.19.2"
# what an absent extra costs, by the extra's name in setup.py
EXTRAS = {
    "fast": "convert encodes with tiktoken, more slowly",
    "ray": "convert --ray is refused",
    "dedupe": "compile --dedupe and --decontaminate are refused",
    "launch": "launch is refused; the plain scripts in examples/ need nothing",
    "eval": "general benchmarks through lm-eval are refused",
    "wandb": "no log to Weights & Biases",
    "mlflow": "no log to MLflow",
    "resilience": "no in-job restart by nvidia-resiliency-ext; torchrun restarts whole jobs",
    "umap": "analyze overlap draws no UMAP",
}


def requirements() -> Iterator[tuple[str, Requirement]]:
    """What the installed distribution asks for: (extra or "", requirement)."""
    for line in metadata.requires("acc-megatron") or ():
        requirement = Requirement(line)
        extras = [extra for extra in EXTRAS if requirement.marker and requirement.marker.evaluate({"extra": extra})]
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield "", requirement
        elif extras:
            yield extras[0], requirement


def check_versions() -> Iterator[Finding]:
    """Every package of the base installation, and every extra as one line."""
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
                mend=f"pip install 'acc-megatron[{extra}]'",
            )


def _python_packages(wanted: list[Requirement]) -> Finding:
    problems = [problem for need in wanted if (problem := _problem(need))]
    return Finding(
        name="python packages",
        state="wrong" if problems else "ok",
        found="; ".join(problems) or f"all {len(wanted)} that the base installation names",
        effect="imports fail, or behave as was never tested",
        mend="pip install -c constraints.txt acc-megatron",
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
    # vendors' builds are pre-releases of the version they are built from, as 2.13.0a0+nv26.06
    base = version.split("+")[0].split("a0")[0]
    return (
        None if need.specifier.contains(base, prereleases=True) else f"{need.name} {version}, wanted {need.specifier}"
    )


def check_imports(facts: dict[str, dict[str, Any]], gpu: bool, driver: bool) -> Iterator[Finding]:
    """What the engine's packages said when a child process imported them; `facts` are by `doctor.probe`'s names."""
    yield from _engine(facts["torch"], facts["megatron.core"], driver)
    triton = facts["triton"]
    yield Finding(
        name="triton",
        state="wrong" if "error" in triton else "ok",
        found=triton.get("error") or triton["version"],
        effect="the masked loss runs its torch path",
        mend="install the triton that torch pins",
        needed=gpu,
    )
    engine = facts["transformer_engine"]
    absent = "No module named 'transformer_engine" in engine.get("error", "")
    state: State = "ok" if "error" not in engine else "missing" if absent else "wrong"
    if state == "wrong" and _cannot_load_cuda(facts["torch"], driver):
        state = "unseen"
    yield Finding(
        name="transformer engine",
        state=state,
        found="not installed" if absent else engine.get("error") or engine["version"],
        effect="no training on GPUs, no FP8" if absent else "megatron-core catches only ImportError and fails with it",
        mend="use NVIDIA's PyTorch image, or on a machine without GPUs remove transformer-engine",
        needed=gpu,
    )
    yield _apex(facts["apex"])


def _engine(torch: dict[str, Any], megatron: dict[str, Any], driver: bool) -> Iterator[Finding]:
    yield Finding(
        name="torch",
        state="wrong" if "error" in torch else "ok",
        found=torch.get("error") or f"{torch['version']}, CUDA {torch['cuda_build'] or 'not built in'}",
        effect="nothing trains",
        mend="install torch 2.13",
        needed=True,
    )
    broken = "error" in megatron
    wrong = broken or megatron["version"].split("+")[0] != MEGATRON_CORE
    unseen = broken and _cannot_load_cuda(torch, driver)
    yield Finding(
        name="megatron-core",
        state="unseen" if unseen else "wrong" if wrong else "ok",
        found=megatron.get("error") or megatron["version"],
        effect="nothing trains" if broken else f"this release is written against {MEGATRON_CORE} exactly",
        mend=f"pip install --no-deps --ignore-requires-python megatron-core=={MEGATRON_CORE}",
        needed=True,
    )


def _cannot_load_cuda(torch: dict[str, Any], driver: bool) -> bool:
    """Whether CUDA packages may fail to import for want of the driver's library alone, as while an image is built."""
    return bool(torch.get("cuda_build")) and not driver


def _apex(facts: dict[str, Any]) -> Finding:
    foreign = facts.get("named_apex") and not facts.get("fused_adam") and not facts.get("fused_weight_gradient")
    able = [name for name in ("fused_adam", "fused_weight_gradient") if facts.get(name)]
    return Finding(
        name="apex",
        state="wrong" if foreign else "ok" if able else "missing",
        found="another project of that name" if foreign else ", ".join(able) or "none of its capabilities",
        effect="megatron-core takes it for NVIDIA's"
        if foreign
        else "Transformer Engine's or torch's optimizer is used",
        mend="pip uninstall apex" if foreign else "",
    )


def check_names() -> Iterator[Finding]:
    """One copy of this package on the path, whole; a foreign `kernels` beside it changes nothing."""
    root = Path(acc_megatron.__file__).parent
    parts = {name: importlib.util.find_spec(f"acc_megatron.{name}") for name in ("kernels", "data_tools")}
    absent = [name for name, spec in parts.items() if spec is None]
    # a checkout's folder on sys.path is not a second copy: the editable install points there
    copies = sorted({str(found) for found in _copies() if found != root})
    problem = f"no acc_megatron.{absent[0]}" if absent else f"a second copy in {copies[0]}" if copies else ""
    yield Finding(
        name="acc-megatron",
        state="wrong" if problem else "ok",
        found=problem or f"{acc_megatron.__version__} in {root}",
        effect="parts of two versions are mixed",
        mend="leave one installation: pip uninstall acc-megatron, then install it again",
        needed=True,
    )
    bare = importlib.util.find_spec("kernels")
    ours = parts["kernels"]
    if bare is not None and ours is not None and bare.origin != ours.origin:
        found = f"another project's, in {bare.origin}; ours is acc_megatron.kernels"
        yield Finding(name="kernels", state="ok", found=found)


def _copies() -> Iterator[Path]:
    for entry in sys.path:
        folder = Path(entry or ".").resolve() / "acc_megatron"
        if (folder / "__init__.py").is_file():
            yield folder
