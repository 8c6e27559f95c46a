"""The TOML file of measured speeds: `calibrate` writes it, `plan --machine FILE` reads it."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from acc_megatron.common.atomic_files import atomic_file
from acc_megatron.common.toml_text import write_toml
from acc_megatron.common.typed_settings import from_dict, read_tree
from acc_megatron.errors import ConfigError
from acc_megatron.mesh.gpu_specs import MACHINES, Machine
from acc_megatron.plan.curve import Curve
from acc_megatron.plan.speeds import Link, LinkKind, Speeds, find_speeds

FORMAT_VERSION = 1


@dataclass
class MeasuredSpeeds:
    """What a calibration found so far; each measurement enters its figures."""

    gemm: Curve | None = None
    expert_gemm: Curve | None = None
    attention_forward: Curve | None = None
    attention_backward: Curve | None = None
    memory_bytes_per_second: float = 0.0
    permutation_bytes_per_second: float = 0.0
    update_bytes_per_second: float = 0.0
    host_seconds_per_layer: float = 0.0
    links: list[Link] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class CurveTable:
    """A curve in the file."""

    tokens: list[int]
    flops_per_second: list[float]

    def curve(self, where: str) -> Curve:
        """The curve; raises ConfigError where `where` is not a curve with increasing sizes and positive speeds."""
        increasing = sorted(set(self.tokens)) == self.tokens and len(self.tokens) == len(self.flops_per_second) > 0
        if not increasing or not all(math.isfinite(rate) and rate > 0 for rate in self.flops_per_second):
            raise ConfigError(
                f"{where} needs increasing tokens and a positive FLOP/s for each, got {self.tokens} and "
                f"{self.flops_per_second}: measure again with acc-megatron calibrate --out FILE"
            )
        return Curve(tuple(self.tokens), tuple(self.flops_per_second))


@dataclass(frozen=True, kw_only=True)
class LinkTable:
    """The links in the file, one in each place of the lists."""

    kind: list[str] = field(default_factory=list)
    num_ranks: list[int] = field(default_factory=list)
    num_nodes: list[int] = field(default_factory=list)
    latency_seconds: list[float] = field(default_factory=list)
    bytes_per_second: list[float] = field(default_factory=list)

    def links(self, where: str) -> tuple[Link, ...]:
        """The links; raises ConfigError for lists of different lengths, an unknown kind or an impossible speed."""
        columns = [getattr(self, item.name) for item in dataclasses.fields(self)]
        if len({len(column) for column in columns}) > 1:
            raise ConfigError(f"{where}: the lists have {', '.join(str(len(column)) for column in columns)} entries")
        names = [item.name for item in dataclasses.fields(self)]
        found = tuple(Link(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True))
        for number, link in enumerate(found):
            if link.kind not in get_args(LinkKind) or link.bytes_per_second <= 0 or link.latency_seconds < 0:
                raise ConfigError(f"{where}: entry {number} is not a link: {link}")
        return found


@dataclass(frozen=True, kw_only=True)
class MachineFile:
    """All of the file."""

    format_version: int
    machine: str  # host, processor and GPU
    versions: str
    date: str
    num_processes: int
    on_gpu: bool
    spec: str  # name in mesh/gpu_specs.py of a GPU of this kind, "" if there is none
    memory_bytes: float
    compute_capability: float
    memory_bytes_per_second: float
    permutation_bytes_per_second: float
    update_bytes_per_second: float
    host_seconds_per_layer: float
    gemm: CurveTable
    expert_gemm: CurveTable
    attention_forward: CurveTable
    attention_backward: CurveTable
    links: LinkTable = field(default_factory=LinkTable)


def read_machine(name: str) -> Speeds:
    """The speeds of a machine file, or the assumed ones of a known machine; raises ConfigError."""
    if not name.endswith(".toml"):
        return find_speeds(name)
    file = from_dict(MachineFile, read_tree(Path(name), ()), name)
    if file.format_version != FORMAT_VERSION:
        raise ConfigError(
            f"{name}: format_version = {file.format_version}, but this version reads {FORMAT_VERSION}: measure again "
            f"with acc-megatron calibrate --out {name}"
        )
    for key in ("memory_bytes", "memory_bytes_per_second", "permutation_bytes_per_second", "update_bytes_per_second"):
        if not getattr(file, key) > 0:
            raise ConfigError(f"{name}: {key} = {getattr(file, key)} must be above 0")
    curves = {key: getattr(file, key).curve(f"{name}: [{key}]") for key in _CURVES}
    return Speeds(
        machine=_machine(file, max(curves["gemm"].values)),
        on_gpu=file.on_gpu,
        **curves,
        memory_bytes_per_second=file.memory_bytes_per_second,
        permutation_bytes_per_second=file.permutation_bytes_per_second,
        update_bytes_per_second=file.update_bytes_per_second,
        host_seconds_per_layer=file.host_seconds_per_layer,
        links=file.links.links(f"{name}: [links]"),
        source=f"{name}, {file.date}, {file.num_processes} processes on {file.machine}",
    )


_CURVES = ("gemm", "expert_gemm", "attention_forward", "attention_backward")


def _machine(file: MachineFile, best_gemm: float) -> Machine:
    """A known GPU keeps the link speeds and the peak of its data sheet; otherwise unmeasured links are unknown."""
    known = MACHINES.get(file.spec)
    if known is not None:
        return dataclasses.replace(known, memory_bytes=file.memory_bytes)
    name = "GPU" if file.on_gpu else "CPU"
    return Machine(
        f"measured {name}", file.memory_bytes, best_gemm, file.memory_bytes_per_second, 0, 0, file.compute_capability
    )


@dataclass(frozen=True, kw_only=True)
class MeasuredMachine:
    """What the file says about the machine, besides speeds."""

    machine: str
    versions: str
    date: str
    num_processes: int
    on_gpu: bool
    spec: str
    memory_bytes: float
    compute_capability: float


def write_machine(path: Path, found: MeasuredSpeeds, about: MeasuredMachine) -> None:
    """Publish the file; all numbers have six digits."""
    numbers = {key: _rounded(value) for key, value in vars(found).items() if isinstance(value, float)}
    columns = {
        item.name: [_rounded(getattr(link, item.name)) for link in found.links]
        for item in dataclasses.fields(LinkTable)
    }
    file = MachineFile(
        format_version=FORMAT_VERSION,
        **dataclasses.asdict(about),
        **numbers,
        gemm=_table(found.gemm),
        expert_gemm=_table(found.expert_gemm),
        attention_forward=_table(found.attention_forward),
        attention_backward=_table(found.attention_backward),
        links=LinkTable(**columns),
    )
    with atomic_file(path) as handle:
        handle.write(f"{write_toml(file)}\n".encode())


def _table(curve: Curve | None) -> CurveTable:
    assert curve is not None, "a measurement entered no speed"
    return CurveTable(
        tokens=[round(size) for size in curve.sizes], flops_per_second=[_rounded(v) for v in curve.values]
    )


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
