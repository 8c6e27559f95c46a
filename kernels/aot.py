"""Compile every kernel for GPUs that are not there, and read from the machine code what became of it.

Registers, spills, shared memory and the instructions that matter: HGMMA (Hopper's matrix products), HMMA (those of
Ampere, a fall-back on Hopper), UTC*MMA (Blackwell's), TMA loads and stores. It shows that a kernel compiles, does not
spill and fits; nothing of speed or races. A process that interprets (TRITON_INTERPRET=1) cannot compile.

    acc-megatron bench kernels --aot         python -m acc_megatron.kernels.aot     the table of kernels/README.md
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from acc_megatron.errors import EnvironmentProblem
from acc_megatron.kernels.masked_linear_cross_entropy import kernel as head
from acc_megatron.kernels.masked_linear_cross_entropy.launch import choose_tile
from acc_megatron.kernels.vocab_parallel_cross_entropy import kernel as rows

CAPABILITIES = (80, 90, 100)
# shared memory that a block may ask for, and registers of a multiprocessor (CUDA programming guide, table of limits)
SHARED_LIMIT_BYTES = {80: 166_912, 90: 232_448, 100: 232_448}
REGISTER_FILE = 65_536
INSTRUCTIONS = {
    "hgmma": r"\bHGMMA",
    "hmma": r"\bHMMA\b",
    "tcgen05": r"\bUTC\w*MMA",
    "cp_async": r"\bLDGSTS",
    "tma_load": r"\bUTMALDG",
    "tma_store": r"\bUTMASTG",
    "spill_instructions": r"\b(?:STL|LDL)",
}
TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}


class Build(NamedTuple):
    """One kernel in one configuration; `signature` in Triton's types, `aligned` integers are multiples of 16."""

    kernel: Any
    config: str
    signature: dict[str, str]
    constants: dict[str, int | bool]
    warps: int
    stages: int
    aligned: tuple[str, ...]
    is_product: bool


def builds(capability: int) -> Iterator[Build]:
    """Every kernel x configuration that the ops launch on this generation, at Qwen3-30B-A3B's hidden size."""
    hidden = 2048
    for dtype in (torch.bfloat16, torch.float32):
        matrix, tile = TYPES[dtype], choose_tile(dtype, capability)
        blocks = {"H": hidden, "BM": tile.BM, "BN": tile.BN, "BK": tile.BK, "GROUP": 8}
        size = f"{matrix[1:]} {tile.BM}x{tile.BN}x{tile.BK}"
        is_product = dtype == torch.bfloat16
        for entropy in (False, True):
            signature = (
                _signature("X W", matrix) | _signature("MAXIMUM SUM_EXP MOMENT", "*fp32") | _signature("N V", "i32")
            )
            config = size + (" entropy" if entropy else "")
            yield Build(
                head.tile_statistics,
                config,
                signature,
                {**blocks, "ENTROPY": entropy},
                tile.warps,
                tile.stages,
                (),
                is_product,
            )
        signature = _signature("X W", matrix) | {"COLUMN": "*i64"}
        signature |= _signature("LOG_SUM_EXP SOFTMAX_SCALE TARGET_SCALE", "*fp32") | {"OUT": matrix}
        signature |= _signature("N V first C stride", "i32")
        yield Build(head.tile_gradient, size, signature, blocks, tile.warps, tile.stages, ("stride",), is_product)
        for transpose in (False, True):
            signature = _signature("A B", matrix) | {"OUT": "*fp32"} | _signature("M K stride", "i32")
            config = size + (" A^T" if transpose else "")
            constants = {**blocks, "TRANSPOSE": transpose}
            yield Build(
                head.add_product, config, signature, constants, tile.warps, tile.stages, ("stride",), is_product
            )
        signature = _signature("X W", matrix) | {"COLUMN": "*i64", "OUT": "*fp32"}
        yield Build(head.target_logit, matrix[1:], signature, {"H": hidden, "B": 1024}, 4, 3, (), False)
        yield from _row_builds(matrix)
    signature = _signature("MAXIMUM_IN SUM_EXP_IN MOMENT_IN MAXIMUM SUM_EXP MOMENT", "*fp32") | _signature(
        "N PARTS", "i32"
    )
    for entropy in (False, True):
        config = "fp32" + (" entropy" if entropy else "")
        yield Build(head.merge_statistics, config, signature, {"B": 256, "ENTROPY": entropy}, 4, 3, (), False)


def _row_builds(matrix: str) -> Iterator[Build]:
    size = f"{matrix[1:]} 8192"
    for entropy in (False, True):
        signature = {"LOGITS": matrix} | _signature("ROWS COLUMN", "*i64")
        signature |= _signature("MAXIMUM SUM_EXP TARGET_LOGIT MOMENT", "*fp32") | _signature("V stride", "i32")
        constants: dict[str, int | bool] = {"B": 8192, "ENTROPY": entropy}
        config = size + (" entropy" if entropy else "")
        yield Build(rows.row_statistics, config, signature, constants, 8, 3, ("stride",), False)
    signature = {"LOGITS": matrix} | _signature("SLOT COLUMN", "*i64")
    signature |= _signature("LOG_SUM_EXP SOFTMAX_SCALE TARGET_SCALE", "*fp32") | _signature("V stride", "i32")
    yield Build(rows.row_gradient, size, signature, {"B": 8192}, 8, 3, ("stride",), False)


def compile_build(build: Build, capability: int) -> dict[str, Any]:
    """Compile and disassemble one build for one generation: registers, bytes, instruction counts."""
    if triton.knobs.runtime.interpret:
        raise EnvironmentProblem("TRITON_INTERPRET=1 is set: unset it, an interpreting process cannot compile")
    pointers = tuple(name for name, kind in build.signature.items() if kind.startswith("*"))
    source = ASTSource(
        fn=build.kernel,
        signature={**build.signature, **dict.fromkeys(build.constants, "constexpr")},
        constexprs=build.constants,
        # as the JIT specialises them
        attrs={(build.kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in pointers + build.aligned},
    )
    options = {"num_warps": build.warps, "num_stages": build.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage = _tool("cuobjdump", "--dump-resource-usage", cubin.name)
        code = _tool("nvdisasm", "-c", cubin.name)
    registers, stack, local = (int(_found(rf"{key}:(\d+)", usage)) for key in ("REG", "STACK", "LOCAL"))
    return {
        "kernel": build.kernel.__name__,
        "config": build.config,
        "target": _found(r"\.target (\w+)", compiled.asm["ptx"]),
        "registers": registers,
        "stack_bytes": stack + local,
        "shared_bytes": compiled.metadata.shared,
        "warps": build.warps,
        **{name: len(re.findall(pattern, code)) for name, pattern in INSTRUCTIONS.items()},
    }


def problems(row: dict[str, Any], capability: int, is_product: bool) -> list[str]:
    """Why a compiled kernel is not acceptable on this generation; empty when it is."""
    wrong = []
    if row["spill_instructions"] or row["stack_bytes"]:
        wrong.append(f"{row['spill_instructions']} spill instructions, {row['stack_bytes']} bytes of stack")
    if row["shared_bytes"] > SHARED_LIMIT_BYTES[capability]:
        wrong.append(f"{row['shared_bytes']} bytes of shared memory; the limit is {SHARED_LIMIT_BYTES[capability]}")
    if row["registers"] * row["warps"] * 32 > REGISTER_FILE:
        wrong.append(f"{row['registers']} registers x {row['warps']} warps x 32; the file holds {REGISTER_FILE}")
    if is_product:
        needed = {80: ("hmma", "cp_async"), 90: ("hgmma", "tma_load"), 100: ("tcgen05", "tma_load")}[capability]
        wrong += [f"no {name}" for name in needed if not row[name]]
        if capability == 90 and row["hmma"]:
            wrong.append(f"{row['hmma']} HMMA: falls back to the products of Ampere")
    return wrong


def report(capabilities: tuple[int, ...] = CAPABILITIES) -> list[dict[str, Any]]:
    """A row a kernel x configuration x generation, with `problems`. Seconds a kernel, cached by TRITON_CACHE_DIR."""
    table = []
    for capability in capabilities:
        for build in builds(capability):
            row = compile_build(build, capability)
            table.append(row | {"problems": problems(row, capability, build.is_product)})
    return table


def markdown(table: list[dict[str, Any]]) -> str:
    """The rows of `report` as a Markdown table."""
    columns = ["kernel", "config", "target", "registers", "spill_instructions", "shared_bytes"]
    columns += ["hgmma", "hmma", "tcgen05", "tma_load", "tma_store"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join(lines + [f"| {' | '.join(str(row[column]) for column in columns)} |" for row in table])


def _signature(names: str, kind: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), kind)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"{pattern} is not in the tool's output"
    return match[1]


def _tool(name: str, *arguments: str) -> str:
    path = Path(nvidia.__file__).parent / "bin" / name
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    print(f"Triton {triton.__version__}\n\n{markdown(report())}")
