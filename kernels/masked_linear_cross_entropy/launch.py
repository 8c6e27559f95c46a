"""The stages of `reference.py` through the kernels: tiles, grids, buffers and nothing else.

Shape suffixes as in `head.py`, C a window of columns. Tiles were chosen by compiling for each GPU generation: the
largest that neither spills nor passes its shared memory (`acc-megatron bench kernels --aot`).
"""

from typing import NamedTuple

import torch
import triton

from acc_megatron.kernels.masked_linear_cross_entropy import kernel
from acc_megatron.kernels.statistics import Statistics
from acc_megatron.kernels.vocab_parallel_cross_entropy.launch import row_gradient_, row_statistics

__all__ = ["add_product_", "head_statistics", "logits", "row_gradient_", "row_statistics", "window_gradient"]


class Tile(NamedTuple):
    """BM x BN x BK elements of one program, in `warps` warps with `stages` loads in flight."""

    BM: int
    BN: int
    BK: int
    warps: int
    stages: int


HOPPER = Tile(128, 256, 64, 8, 3)
AMPERE = Tile(128, 128, 32, 8, 3)
# float32 tiles are twice the bytes, and run on no tensor core
FLOAT32 = Tile(64, 64, 32, 8, 2)


def choose_tile(dtype: torch.dtype, capability: int) -> Tile:
    """The tile for a dtype and a compute capability: 80, 90, 100."""
    if dtype == torch.float32:
        return FLOAT32
    return HOPPER if capability >= 90 else AMPERE


def logits(rows_NH: torch.Tensor, weight_VH: torch.Tensor) -> torch.Tensor:
    """Compact logits `[N, V]` by the library's product, rows a multiple of 16 elements apart as TMA asks."""
    num_columns = len(weight_VH)
    return torch.mm(rows_NH, weight_VH.T, out=_padded(rows_NH, num_columns))


def head_statistics(
    rows_NH: torch.Tensor, weight_VH: torch.Tensor, columns_N: torch.Tensor, window: int, with_entropy: bool
) -> Statistics:
    """Statistics `[N]` of logits that never exist; `window` is for plain torch alone."""
    num_rows, hidden = rows_NH.shape
    num_columns, device = len(weight_VH), rows_NH.device
    tile = _tile(rows_NH)
    parts = triton.cdiv(num_columns, tile.BN)
    own = torch.empty(4, num_rows, dtype=torch.float32, device=device)
    maximum_N, sum_exp_N, moment_N, target_N = own.unbind()
    if num_rows:
        partial = torch.empty(3 if with_entropy else 2, parts, num_rows, dtype=torch.float32, device=device)
        # without entropy the third is never touched
        partials = partial[0], partial[1], partial[-1]
        kernel.tile_statistics[(triton.cdiv(num_rows, tile.BM) * parts,)](
            rows_NH, weight_VH, *partials, num_rows, num_columns, H=hidden, ENTROPY=with_entropy, **_options(tile)
        )
        kernel.merge_statistics[(triton.cdiv(num_rows, 256),)](
            *partials, maximum_N, sum_exp_N, moment_N, num_rows, parts, B=256, ENTROPY=with_entropy
        )
        kernel.target_logit[(num_rows,)](rows_NH, weight_VH, columns_N, target_N, H=hidden, B=1024)
    return Statistics(maximum_N, sum_exp_N, target_N, moment_N if with_entropy else None)


def window_gradient(
    rows_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    window: slice,
    columns_N: torch.Tensor,
    log_sum_exp_N: torch.Tensor,
    softmax_scale_N: torch.Tensor,
    target_scale_N: torch.Tensor,
) -> torch.Tensor:
    """Gradient by the logits `[N, C]` of one window, recomputed tile by tile."""
    num_rows, hidden = rows_NH.shape
    num_columns = window.stop - window.start
    out_NC = _padded(rows_NH, num_columns)
    if num_rows:
        tile = _tile(rows_NH)
        kernel.tile_gradient[(triton.cdiv(num_rows, tile.BM) * triton.cdiv(num_columns, tile.BN),)](
            rows_NH,
            weight_VH,
            columns_N,
            log_sum_exp_N,
            softmax_scale_N,
            target_scale_N,
            out_NC,
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
    tile = _tile(right)
    kernel.add_product[(triton.cdiv(num_rows, tile.BM) * triton.cdiv(hidden, tile.BN),)](
        left, right, out, num_rows, len(right), left.stride(0), H=hidden, TRANSPOSE=transpose, **_options(tile)
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
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def _tile(rows_NH: torch.Tensor) -> Tile:
    """Also lends Triton the scratch memory that descriptors made on the device need."""
    if not rows_NH.is_cuda:
        return choose_tile(rows_NH.dtype, 90)
    triton.set_allocator(_scratch)
    major, minor = torch.cuda.get_device_capability(rows_NH.device)
    return choose_tile(rows_NH.dtype, 10 * major + minor)


def _scratch(size: int, alignment: int, stream: int | None) -> torch.Tensor:
    return torch.empty(size, dtype=torch.int8, device="cuda")
