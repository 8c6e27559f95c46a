"""Every kernel and configuration that the operations launch, for ahead-of-time compilation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from acc_megatron.kernels.masked_linear_cross_entropy import kernel as linear_kernels
from acc_megatron.kernels.masked_linear_cross_entropy.launch import (
    MERGED_PARTS,
    MERGED_ROWS,
    MIN_TMA_CAPABILITY,
    STEP_COLUMNS,
    Tile,
    choose_tile,
)
from acc_megatron.kernels.vocab_parallel_cross_entropy import kernel as row_kernels
from acc_megatron.kernels.vocab_parallel_cross_entropy.launch import BLOCK_COLUMNS

HIDDEN = 2048  # of Qwen3-30B-A3B
MATRIX_TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}


@dataclass(frozen=True, kw_only=True)
class Build:
    """One kernel in one configuration.

    `signature` maps arguments to Triton types. Integers named in `aligned` are multiples of 16, for which the JIT
    compiles different code. `is_product` marks kernels that must use tensor cores.
    """

    kernel: Any
    config: str
    signature: dict[str, str]
    constants: dict[str, int | bool]
    num_warps: int = 4
    num_stages: int = 3
    aligned: tuple[str, ...] = ()
    is_product: bool = False


def builds(capability: int) -> Iterator[Build]:
    """Every build for a compute capability: 80, 90, 100 or 120."""
    for dtype, matrix in MATRIX_TYPES.items():
        tile = choose_tile(dtype, capability)
        for aligned_rows in (False, True):
            yield from _tile_builds(matrix, tile, capability, aligned_rows=aligned_rows)
        yield Build(
            kernel=linear_kernels.kept_gradient,
            config=f"{matrix[1:]} tiles of {tile.BN}",
            signature={"EXPONENTIALS": matrix, "MAXIMUM": "*fp32", "COLUMN": "*i64"}
            | _typed("LOG_SUM_EXP SOFTMAX_SCALE TARGET_SCALE", "*fp32")
            | _typed("N V stride", "i32"),
            constants={"BN": tile.BN, "TILES": STEP_COLUMNS // tile.BN},
            num_warps=8,
            aligned=("V", "stride"),
        )
        yield Build(
            kernel=linear_kernels.target_logit,
            config=matrix[1:],
            signature=_typed("X W", matrix) | {"COLUMN": "*i64", "OUT": "*fp32"},
            constants={"H": HIDDEN, "B": 1024},
        )
        yield from _row_builds(matrix)
    statistics = "MAXIMUM_IN SUM_EXP_IN MOMENT_IN MAXIMUM SUM_EXP MOMENT"
    for entropy in (False, True):
        yield Build(
            kernel=linear_kernels.merge_statistics,
            config="fp32" + _suffix(entropy),
            signature=_typed(statistics, "*fp32") | _typed("N PARTS", "i32"),
            constants={"B": MERGED_ROWS, "P": MERGED_PARTS, "ENTROPY": entropy},
        )


def _tile_builds(matrix: str, tile: Tile, capability: int, *, aligned_rows: bool) -> Iterator[Build]:
    """The kernels with matrix products; the number of supervised rows is a multiple of 16 or not.

    Vocabulary shards, windows and strides are multiples of 16 at the sizes of Qwen.
    """

    def blocks_of(rows: int, columns: int, kind: str = matrix) -> str:
        """The type of a matrix that is accessed in blocks: a descriptor of the host, or a pointer."""
        return f"tensordesc<{kind[1:]}[{rows}, {columns}]>" if capability >= MIN_TMA_CAPABILITY else kind

    operands = {"X": blocks_of(tile.BM, tile.BK), "W": blocks_of(tile.BN, tile.BK)}
    is_product = matrix == "*bf16"
    blocks: dict[str, int | bool] = {"H": HIDDEN, "BM": tile.BM, "BN": tile.BN, "BK": tile.BK, "GROUP": 8}
    size = f"{matrix[1:]} {tile.BM}x{tile.BN}x{tile.BK}" + (" rows % 16 = 0" if aligned_rows else "")
    rows = ("N",) if aligned_rows else ()
    for keep, entropy in ((False, False), (False, True), (True, False), (True, True)):
        yield Build(
            kernel=linear_kernels.tile_statistics,
            config=size + (" keep" if keep else "") + _suffix(entropy),
            signature=operands
            | _typed("MAXIMUM SUM_EXP MOMENT", "*fp32")
            | {"EXPONENTIALS": blocks_of(tile.BM, tile.BN // 2) if keep else matrix}
            | _typed("N V stride", "i32"),
            constants={**blocks, "ENTROPY": entropy, "KEEP": keep},
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            aligned=("V", "stride", *rows),
            is_product=is_product,
        )
    row_values = _typed("LOG_SUM_EXP SOFTMAX_SCALE TARGET_SCALE", "*fp32")
    yield Build(
        kernel=linear_kernels.tile_gradient,
        config=size,
        signature=operands
        | {"COLUMN": "*i64"}
        | row_values
        | {"OUT": blocks_of(tile.BM, tile.BN)}
        | _typed("N V first C stride", "i32"),
        constants=blocks,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        aligned=("V", "first", "C", "stride", *rows),
        is_product=is_product,
    )
    for transpose in (False, True):
        yield Build(
            kernel=linear_kernels.add_product,
            config=size + (" A^T" if transpose else ""),
            signature={
                "A": blocks_of(tile.BK, tile.BM) if transpose else blocks_of(tile.BM, tile.BK),
                "B": blocks_of(tile.BK, tile.BN),
                "OUT": blocks_of(tile.BM, tile.BN // 2, "*fp32"),
                **_typed("M K stride", "i32"),
            },
            constants={**blocks, "TRANSPOSE": transpose},
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            # the gradient of the weight has a row for each column and sums over the rows
            aligned=("M", "K", "stride") if aligned_rows else ("M" if transpose else "K", "stride"),
            is_product=is_product,
        )


def _row_builds(matrix: str) -> Iterator[Build]:
    size = f"{matrix[1:]} {BLOCK_COLUMNS}"
    for entropy in (False, True):
        yield Build(
            kernel=row_kernels.row_statistics,
            config=size + _suffix(entropy),
            signature={"LOGITS": matrix}
            | _typed("ROWS COLUMN", "*i64")
            | _typed("MAXIMUM SUM_EXP TARGET_LOGIT MOMENT", "*fp32")
            | _typed("V stride", "i32"),
            constants={"B": BLOCK_COLUMNS, "ENTROPY": entropy},
            num_warps=8,
            aligned=("V", "stride"),
        )
    yield Build(
        kernel=row_kernels.row_gradient,
        config=size,
        signature={"LOGITS": matrix}
        | _typed("SLOT COLUMN", "*i64")
        | _typed("LOG_SUM_EXP SOFTMAX_SCALE TARGET_SCALE", "*fp32")
        | _typed("V stride", "i32"),
        constants={"B": BLOCK_COLUMNS},
        num_warps=8,
        aligned=("V", "stride"),
    )


def _typed(names: str, kind: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), kind)


def _suffix(entropy: bool) -> str:
    return " entropy" if entropy else ""
