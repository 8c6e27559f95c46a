"""The functions of `reference.py` implemented by the kernels: tile sizes, grids and buffers.

Shape suffixes as in `autograd.py`; C is a window of columns. The tile of each GPU generation is the largest that
compiles without spills and fits into shared memory (`acc-megatron bench kernels --aot`).
"""

from typing import NamedTuple

import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from acc_megatron.kernels.masked_linear_cross_entropy import kernel
from acc_megatron.kernels.masked_linear_cross_entropy.autograd import KeptExponentials
from acc_megatron.kernels.shared.softmax_statistics import Statistics

# columns that one step of `kept_gradient` covers
STEP_COLUMNS = 8192
# rows of one program of `merge_statistics`, and parts of a row that one step merges
MERGED_ROWS, MERGED_PARTS = 32, 32


# The gradients of hidden states and weight by cuBLAS, which also splits long sums of few tiles. `bench kernels --parts`
# compares both; no GPU has measured them yet, and a time model favours cuBLAS by 14 % (TP 1) to 42 % (655 rows).
LIBRARY_PRODUCTS = hasattr(torch.ops.aten.addmm, "dtype_out")


class Tile(NamedTuple):
    """BM x BN x BK elements of one program, computed by `num_warps` warps with `num_stages` loads in flight."""

    BM: int
    BN: int
    BK: int
    num_warps: int
    num_stages: int


HOPPER = Tile(128, 256, 64, 8, 4)
AMPERE = Tile(128, 128, 32, 8, 3)
# float32 tiles need twice the bytes and do not use tensor cores
FLOAT32 = Tile(64, 64, 32, 8, 2)


# Loads of whole blocks by descriptor (TMA). Kernels take descriptors that the host makes: one that a kernel makes costs
# every program a fence. Older GPUs take pointers, because the compiler then knows the strides and loads asynchronously.
MIN_TMA_CAPABILITY = 90


def choose_tile(dtype: torch.dtype, capability: int) -> Tile:
    """The tile for a dtype and a compute capability, for example 90 for 9.0."""
    if dtype == torch.float32:
        return FLOAT32
    # 12.x, consumer Blackwell, has the shared memory and the matrix instructions of Ampere
    return HOPPER if 90 <= capability < 120 else AMPERE


def head_statistics(
    rows_NH: torch.Tensor, weight_VH: torch.Tensor, columns_N: torch.Tensor, *, with_entropy: bool, keep: bool
) -> tuple[Statistics, KeptExponentials | None]:
    """Statistics `[N]` from float32 logits, which are not stored; with `keep` also their exponentials."""
    num_rows, hidden = rows_NH.shape
    num_columns, device = len(weight_VH), rows_NH.device
    tile = _tile(rows_NH)
    parts = triton.cdiv(num_columns, tile.BN)
    own = torch.empty(4, num_rows, dtype=torch.float32, device=device)
    maximum_N, sum_exp_N, moment_N, target_N = own.unbind()
    tile_maximum_PN = torch.empty(parts, num_rows, dtype=torch.float32, device=device)
    exponentials_NV = _padded(rows_NH, num_columns) if keep else None
    if num_rows:
        partial = torch.empty(2 if with_entropy else 1, parts, num_rows, dtype=torch.float32, device=device)
        # without entropy the third is never accessed
        partials = tile_maximum_PN, partial[0], partial[-1]
        # without `keep` the output is never accessed
        out = rows_NH if exponentials_NV is None else _matrix(exponentials_NV, tile.BM, tile.BN // 2)
        kernel.tile_statistics[(triton.cdiv(num_rows, tile.BM) * parts,)](
            _matrix(rows_NH, tile.BM, tile.BK),
            _matrix(weight_VH, tile.BN, tile.BK),
            *partials,
            out,
            num_rows,
            num_columns,
            0 if exponentials_NV is None else exponentials_NV.stride(0),
            H=hidden,
            ENTROPY=with_entropy,
            KEEP=keep,
            **_options(tile),
        )
        kernel.merge_statistics[(triton.cdiv(num_rows, MERGED_ROWS),)](
            *partials,
            maximum_N,
            sum_exp_N,
            moment_N,
            num_rows,
            parts,
            B=MERGED_ROWS,
            P=MERGED_PARTS,
            ENTROPY=with_entropy,
        )
        kernel.target_logit[(num_rows,)](rows_NH, weight_VH, columns_N, target_N, H=hidden, B=1024)
    kept = None if exponentials_NV is None else KeptExponentials(exponentials_NV, tile_maximum_PN)
    return Statistics(maximum_N, sum_exp_N, target_N, moment_N if with_entropy else None), kept


def kept_gradient(
    kept: KeptExponentials,
    columns_N: torch.Tensor,
    log_sum_exp_N: torch.Tensor,
    softmax_scale_N: torch.Tensor,
    target_scale_N: torch.Tensor,
) -> torch.Tensor:
    """Overwrite kept exponentials `[N, V]` with the gradient of the logits, and return them."""
    exponentials_NV, tile_maximum_PN = kept
    num_rows, num_columns = exponentials_NV.shape
    if num_rows:
        tile = _tile(exponentials_NV)
        kernel.kept_gradient[(num_rows,)](
            exponentials_NV,
            tile_maximum_PN,
            columns_N,
            log_sum_exp_N,
            softmax_scale_N,
            target_scale_N,
            num_rows,
            num_columns,
            exponentials_NV.stride(0),
            BN=tile.BN,
            TILES=STEP_COLUMNS // tile.BN,
            num_warps=8,
        )
    return exponentials_NV


def window_gradient(
    rows_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    window: slice,
    columns_N: torch.Tensor,
    log_sum_exp_N: torch.Tensor,
    softmax_scale_N: torch.Tensor,
    target_scale_N: torch.Tensor,
) -> torch.Tensor:
    """Gradient of the logits `[N, C]` of one window, which are recomputed tile by tile."""
    num_rows, hidden = rows_NH.shape
    num_columns = window.stop - window.start
    out_NC = _padded(rows_NH, num_columns)
    if num_rows:
        tile = _tile(rows_NH)
        kernel.tile_gradient[(triton.cdiv(num_rows, tile.BM) * triton.cdiv(num_columns, tile.BN),)](
            _matrix(rows_NH, tile.BM, tile.BK),
            _matrix(weight_VH, tile.BN, tile.BK),
            columns_N,
            log_sum_exp_N,
            softmax_scale_N,
            target_scale_N,
            _matrix(out_NC, tile.BM, tile.BN),
            num_rows,
            len(weight_VH),
            window.start,
            num_columns,
            out_NC.stride(0),
            H=hidden,
            **_options(tile),
        )
    return out_NC


def add_product_(out: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, transpose: bool) -> None:
    """out `[M, H]` float32 += left `[M, K]` (or left `[K, M]` transposed) @ right `[K, H]`, summed in float32."""
    num_rows, hidden = out.shape
    if not left.numel():
        return
    if LIBRARY_PRODUCTS and out.is_cuda and right.dtype != torch.float32:
        torch.addmm(out, left.T if transpose else left, right, out_dtype=torch.float32, out=out)
        return
    tile = _tile(right)
    kernel.add_product[(triton.cdiv(num_rows, tile.BM) * triton.cdiv(hidden, tile.BN),)](
        _matrix(left, *((tile.BK, tile.BM) if transpose else (tile.BM, tile.BK))),
        _matrix(right, tile.BK, tile.BN),
        _matrix(out, tile.BM, tile.BN // 2),
        num_rows,
        len(right),
        left.stride(0),
        H=hidden,
        TRANSPOSE=transpose,
        **_options(tile),
    )


def _padded(rows_NH: torch.Tensor, num_columns: int) -> torch.Tensor:
    stride = triton.cdiv(num_columns, 16) * 16
    return torch.empty(len(rows_NH), stride, dtype=rows_NH.dtype, device=rows_NH.device)[:, :num_columns]


def _options(tile: Tile) -> dict[str, int]:
    return {
        "BM": tile.BM,
        "BN": tile.BN,
        "BK": tile.BK,
        "GROUP": 8,
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
    }


def _tile(rows_NH: torch.Tensor) -> Tile:
    return choose_tile(rows_NH.dtype, _capability(rows_NH))


def _matrix(matrix: torch.Tensor, rows: int, columns: int) -> torch.Tensor | TensorDescriptor:
    """What a kernel takes for a matrix of which it accesses blocks `[rows, columns]`."""
    has_tma = _capability(matrix) >= MIN_TMA_CAPABILITY
    return TensorDescriptor.from_tensor(matrix, [rows, columns]) if has_tma else matrix


def _capability(tensor: torch.Tensor) -> int:
    """Of the GPU, for example 90 for 9.0; the interpreter on CPU takes the path of Hopper."""
    if not tensor.is_cuda:
        return 90
    major, minor = torch.cuda.get_device_capability(tensor.device)
    return 10 * major + minor
