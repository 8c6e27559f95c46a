"""Compiles every kernel for GPU generations that this machine need not have, and checks the machine code.

Reports registers, spills, shared memory and instruction counts: HGMMA (matrix products of Hopper), HMMA (of Ampere; on
Hopper a slow fallback), UTC*MMA (of Blackwell), and TMA loads and stores. This shows that a kernel compiles, does not
spill and fits. It says nothing about speed or races. Needs a process without TRITON_INTERPRET=1.
"""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from acc_megatron.errors import EnvironmentProblem
from acc_megatron.kernels.benchmark.aot_builds import Build, builds

CAPABILITIES = (80, 90, 100, 120)
# shared memory per block and registers per multiprocessor (CUDA programming guide, technical specifications)
SHARED_LIMIT_BYTES = {80: 166_912, 90: 232_448, 100: 232_448, 120: 101_376}
REGISTERS_PER_MULTIPROCESSOR = 65_536
INSTRUCTIONS = {
    "spill_instructions": r"\b(?:STL|LDL)",
    "hgmma": r"\bHGMMA",
    "hmma": r"\bHMMA\b",
    "tcgen05": r"\bUTC\w*MMA",
    "cp_async": r"\bLDGSTS",
    "tma_load": r"\bUTMALDG",
    "tma_store": r"\bUTMASTG",
}
# instructions that a kernel with matrix products must contain
PRODUCT_INSTRUCTIONS = {
    80: ("hmma", "cp_async"),
    90: ("hgmma", "tma_load"),
    100: ("tcgen05", "tma_load"),
    120: ("hmma", "tma_load"),
}


@dataclass(frozen=True, kw_only=True)
class CompiledKernel:
    """What the compiler made of one build on one target; fields named in INSTRUCTIONS count instructions."""

    kernel: str
    config: str
    target: str
    registers: int
    spill_instructions: int
    shared_bytes: int
    hgmma: int
    hmma: int
    tcgen05: int
    tma_load: int
    tma_store: int
    cp_async: int
    stack_bytes: int
    warps: int
    problems: tuple[str, ...] = ()


def compile_build(build: Build, capability: int) -> CompiledKernel:
    """Compile and disassemble one build for one GPU generation. Raises EnvironmentProblem if Triton interprets."""
    if triton.knobs.runtime.interpret:
        raise EnvironmentProblem("TRITON_INTERPRET=1 is set, so kernels cannot be compiled: unset it")
    pointers = tuple(name for name, kind in build.signature.items() if kind.startswith("*"))
    source = ASTSource(
        fn=build.kernel,
        signature={**build.signature, **dict.fromkeys(build.constants, "constexpr")},
        constexprs=build.constants,
        # the specialisation of the JIT
        attrs={(build.kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in pointers + build.aligned},
    )
    options = {"num_warps": build.num_warps, "num_stages": build.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage = _run_tool("cuobjdump", "--dump-resource-usage", cubin.name)
        code = _run_tool("nvdisasm", "-c", cubin.name)
    registers, stack, local = (int(_find(rf"{key}:(\d+)", usage)) for key in ("REG", "STACK", "LOCAL"))
    values: dict[str, Any] = {
        "kernel": build.kernel.__name__,
        "config": build.config,
        "target": _find(r"\.target (\w+)", compiled.asm["ptx"]),
        "registers": registers,
        "warps": build.num_warps,
        "stack_bytes": stack + local,
        "shared_bytes": compiled.metadata.shared,
        **{name: len(re.findall(pattern, code)) for name, pattern in INSTRUCTIONS.items()},
    }
    problems = find_problems(CompiledKernel(**values), capability, build.is_product)
    return CompiledKernel(**values, problems=tuple(problems))


def find_problems(compiled: CompiledKernel, capability: int, is_product: bool) -> list[str]:
    """Why a compiled kernel is not acceptable on this GPU generation; empty if it is."""
    problems = []
    if compiled.spill_instructions or compiled.stack_bytes:
        problems.append(f"{compiled.spill_instructions} spill instructions, {compiled.stack_bytes} bytes of stack")
    if compiled.shared_bytes > SHARED_LIMIT_BYTES[capability]:
        problems.append(
            f"{compiled.shared_bytes} bytes of shared memory; the limit is {SHARED_LIMIT_BYTES[capability]}"
        )
    if compiled.registers * compiled.warps * 32 > REGISTERS_PER_MULTIPROCESSOR:
        problems.append(
            f"{compiled.registers} registers x {compiled.warps} warps x 32 threads; "
            f"the limit is {REGISTERS_PER_MULTIPROCESSOR}"
        )
    if is_product:
        problems += [
            f"no {name} instruction" for name in PRODUCT_INSTRUCTIONS[capability] if not getattr(compiled, name)
        ]
        if capability == 90 and compiled.hmma:
            problems.append(f"{compiled.hmma} HMMA instructions: the slower matrix products of Ampere")
    return problems


def report(capabilities: Sequence[int] = CAPABILITIES) -> list[CompiledKernel]:
    """Compile every build for every GPU generation. Takes seconds per kernel; Triton caches results on disk."""
    return [compile_build(build, capability) for capability in capabilities for build in builds(capability)]


def markdown(rows: Sequence[CompiledKernel]) -> str:
    """The report as a Markdown table, with the version of Triton."""
    hidden = ("warps", "stack_bytes", "cp_async", "problems")
    columns = [field.name for field in fields(CompiledKernel) if field.name not in hidden]
    lines = [f"Triton {triton.__version__}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join(lines + [f"| {' | '.join(str(getattr(row, column)) for column in columns)} |" for row in rows])


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"{pattern} not found in the output of the tool"
    return match[1]


def _run_tool(name: str, *arguments: str) -> str:
    path = Path(nvidia.__file__).parent / "bin" / name
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, check=True).stdout
