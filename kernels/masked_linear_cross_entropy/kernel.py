"""Triton kernels of the masked output layer on compact rows, without atomics: results are deterministic.

Names: N supervised rows, V vocabulary shard, C columns of a window, H hidden; BM x BN x BK are tile sizes. Matrices of
the kernels with products are accessed through tensor descriptors (TMA on Hopper and Blackwell): the host makes them, or
the kernel from a pointer (`_matrix`). Outside a matrix, loads return zeros and stores are dropped.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
import triton
import triton.language as tl

from acc_megatron.kernels.shared import softmax_statistics

LOWEST_MAXIMUM = tl.constexpr(softmax_statistics.LOWEST_MAXIMUM)
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _grouped_tile(num_rows, num_columns, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    """Visit GROUP row tiles for each column tile, so that a tile of the weight stays in L2."""
    program = tl.program_id(0)
    tiles_m = tl.cdiv(num_rows, BM)
    tiles_n = tl.cdiv(num_columns, BN)
    first = (program // (GROUP * tiles_n)) * GROUP
    size = min(tiles_m - first, GROUP)
    inside = program % (GROUP * tiles_n)
    return first + inside % size, inside // size


@triton.jit
def _matrix(given, rows, columns, stride, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    """The descriptor of a matrix `[rows, columns]`: `given`, or made from the pointer `given`."""
    if isinstance(given, tl.tensor_descriptor):
        return given
    else:
        return tl.make_tensor_descriptor(given, [rows, columns], [stride, 1], [BLOCK_ROWS, BLOCK_COLUMNS])


@triton.jit
def _halves(tile, BM: tl.constexpr, BN: tl.constexpr):
    """Split a `[BM, BN]` tile into its left and right half: an epilogue in halves does not spill registers."""
    return tl.split(tl.permute(tl.reshape(tile, (BM, 2, BN // 2)), (0, 2, 1)))


@triton.jit
def tile_statistics(
    X, W, MAXIMUM, SUM_EXP, MOMENT, EXPONENTIALS, N, V, stride,
    H: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    ENTROPY: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Reduce one tile of u = X W^T log2(e) to `[tiles_n, N]`: max u, sum of e = 2^(u - max u), sum (u - max u) e.

    With KEEP, e is also stored, rounded, in EXPONENTIALS `[N, V]`. The sums are those of the values before rounding.
    """
    pm, pn = _grouped_tile(N, V, BM, BN, GROUP)
    x = _matrix(X, N, H, H, BM, BK)
    w = _matrix(W, V, H, H, BN, BK)
    logits = tl.zeros((BM, BN), tl.float32)
    for k in range(0, H, BK):
        logits = tl.dot(x.load([pm * BM, k]), w.load([pn * BN, k]).T, logits, input_precision="ieee")
    left, right = _halves(logits, BM, BN)
    column = tl.arange(0, BN // 2)
    valid = V - pn * BN
    left = tl.where((column < valid)[None, :], left, float("-inf"))
    right = tl.where((column + BN // 2 < valid)[None, :], right, float("-inf"))
    maximum = tl.maximum(tl.maximum(tl.max(left, 1), tl.max(right, 1)) * LOG2_E, LOWEST_MAXIMUM)
    u = left * LOG2_E - maximum[:, None]
    e = tl.exp2(u)
    total = tl.sum(e, 1)
    if KEEP:
        kept = _matrix(EXPONENTIALS, N, V, stride, BM, BN // 2)
        kept.store([pm * BM, pn * BN], e.to(kept.dtype))
    if ENTROPY:
        moment = tl.sum(tl.where(e > 0, u * e, 0.0), 1)
    u = right * LOG2_E - maximum[:, None]
    e = tl.exp2(u)
    total += tl.sum(e, 1)
    if KEEP:
        kept.store([pm * BM, pn * BN + BN // 2], e.to(kept.dtype))
    rows = pm * BM + tl.arange(0, BM)
    at = pn.to(tl.int64) * N + rows
    tl.store(MAXIMUM + at, maximum, mask=rows < N)
    tl.store(SUM_EXP + at, total, mask=rows < N)
    if ENTROPY:
        moment += tl.sum(tl.where(e > 0, u * e, 0.0), 1)
        tl.store(MOMENT + at, moment, mask=rows < N)


@triton.jit
def merge_statistics(
    MAXIMUM_IN, SUM_EXP_IN, MOMENT_IN, MAXIMUM, SUM_EXP, MOMENT, N, PARTS, B: tl.constexpr, P: tl.constexpr,
    ENTROPY: tl.constexpr,
):  # fmt: skip
    """Merge base-2 partials `[PARTS, N]` to natural statistics `[N]`, P parts of B rows at a time, in a fixed order."""
    rows = tl.program_id(0) * B + tl.arange(0, B)
    keep = rows < N
    maximum = tl.full((B,), LOWEST_MAXIMUM, tl.float32)
    total = tl.zeros((B,), tl.float32)
    moment = tl.zeros((B,), tl.float32)
    for start in range(0, PARTS, P):
        part = start + tl.arange(0, P)
        at = part.to(tl.int64)[:, None] * N + rows[None, :]
        mask = (part < PARTS)[:, None] & keep[None, :]
        part_maximum = tl.load(MAXIMUM_IN + at, mask=mask, other=LOWEST_MAXIMUM)
        part_total = tl.load(SUM_EXP_IN + at, mask=mask, other=0.0)
        larger = tl.maximum(maximum, tl.max(part_maximum, 0))
        scale = tl.exp2(maximum - larger)
        shift = part_maximum - larger[None, :]
        part_scale = tl.exp2(shift)
        if ENTROPY:
            part_moment = tl.load(MOMENT_IN + at, mask=mask, other=0.0)
            moment = (moment + (maximum - larger) * total) * scale
            moment += tl.sum((part_moment + shift * part_total) * part_scale, 0)
        total = total * scale + tl.sum(part_total * part_scale, 0)
        maximum = larger
    tl.store(MAXIMUM + rows, maximum * LN_2, mask=keep)
    tl.store(SUM_EXP + rows, total, mask=keep)
    if ENTROPY:
        tl.store(MOMENT + rows, moment * LN_2, mask=keep)


@triton.jit
def target_logit(X, W, COLUMN, OUT, H: tl.constexpr, B: tl.constexpr):
    """Compute the logit of the target, 0 if its column is -1. A select in the epilogue of the tiles would spill."""
    n = tl.program_id(0).to(tl.int64)
    column = tl.load(COLUMN + n).to(tl.int64)
    total = tl.zeros((B,), tl.float32)
    for start in range(0, H, B):
        h = start + tl.arange(0, B)
        inside = h < H
        # a vector: the interpreter of Triton 3.9 does not accept a scalar comparison as a mask
        owned = inside & (tl.zeros((B,), tl.int64) + column >= 0)
        x = tl.load(X + n * H + h, mask=inside, other=0.0).to(tl.float32)
        w = tl.load(W + column * H + h, mask=owned, other=0.0).to(tl.float32)
        total += x * w
    tl.store(OUT + n, tl.sum(total, 0))


@triton.jit
def tile_gradient(
    X, W, COLUMN, LOG_SUM_EXP, SOFTMAX_SCALE, TARGET_SCALE, OUT, N, V, first, C, stride,
    H: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """OUT `[N, C]` = softmax_scale x softmax - target_scale x onehot, for shard columns first .. first + C."""
    pm, pn = _grouped_tile(N, C, BM, BN, GROUP)
    x = _matrix(X, N, H, H, BM, BK)
    w = _matrix(W, V, H, H, BN, BK)
    out = _matrix(OUT, N, C, stride, BM, BN)
    logits = tl.zeros((BM, BN), tl.float32)
    for k in range(0, H, BK):
        logits = tl.dot(x.load([pm * BM, k]), w.load([first + pn * BN, k]).T, logits, input_precision="ieee")
    rows = pm * BM + tl.arange(0, BM)
    keep = rows < N
    shard_column = first + pn * BN + tl.arange(0, BN)
    column = tl.load(COLUMN + rows, mask=keep, other=-1).to(tl.int32)
    log_sum_exp = tl.load(LOG_SUM_EXP + rows, mask=keep, other=float("inf"))
    softmax_scale = tl.load(SOFTMAX_SCALE + rows, mask=keep, other=0.0)
    target_scale = tl.load(TARGET_SCALE + rows, mask=keep, other=0.0)
    gradient = tl.exp(logits - log_sum_exp[:, None]) * softmax_scale[:, None]
    gradient -= tl.where(shard_column[None, :] == column[:, None], target_scale[:, None], 0.0)
    out.store([pm * BM, pn * BN], gradient.to(out.dtype))


@triton.jit
def kept_gradient(
    EXPONENTIALS, MAXIMUM, COLUMN, LOG_SUM_EXP, SOFTMAX_SCALE, TARGET_SCALE, N, V, stride,
    BN: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Overwrite a row of `tile_statistics`' e with softmax_scale x softmax - target_scale x onehot.

    softmax = e 2^(MAXIMUM of the tile - log2(e) log_sum_exp). A step covers TILES tiles of BN columns.
    """
    n = tl.program_id(0).to(tl.int64)
    row = EXPONENTIALS + n * stride
    column = tl.load(COLUMN + n)
    log_sum_exp = tl.load(LOG_SUM_EXP + n) * LOG2_E
    softmax_scale = tl.load(SOFTMAX_SCALE + n)
    target_scale = tl.load(TARGET_SCALE + n)
    for start in range(0, V, TILES * BN):
        tile = start // BN + tl.arange(0, TILES)
        maximum = tl.load(MAXIMUM + tile.to(tl.int64) * N + n, mask=tile * BN < V, other=0.0)
        scale = tl.exp2(maximum - log_sum_exp) * softmax_scale
        offsets = tile[:, None] * BN + tl.arange(0, BN)[None, :]
        gradient = tl.load(row + offsets, mask=offsets < V, other=0.0).to(tl.float32) * scale[:, None]
        gradient = tl.where(offsets == column, gradient - target_scale, gradient)
        tl.store(row + offsets, gradient.to(EXPONENTIALS.dtype.element_ty), mask=offsets < V)


@triton.jit
def add_product(
    A, B, OUT, M, K, stride,
    H: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
    TRANSPOSE: tl.constexpr,
):  # fmt: skip
    """OUT `[M, H]` float32 += A `[M, K]` B `[K, H]`, or A^T B with A `[K, M]`; A has row stride `stride`.

    Each tile is summed first and added to OUT once, so that small products are not rounded away one by one.
    """
    pm, pn = _grouped_tile(M, H, BM, BN, GROUP)
    b = _matrix(B, K, H, H, BK, BN)
    total = tl.zeros((BM, BN), tl.float32)
    if TRANSPOSE:
        a = _matrix(A, K, M, stride, BK, BM)
        for k in range(0, K, BK):
            total = tl.dot(a.load([k, pm * BM]).T, b.load([k, pn * BN]), total, input_precision="ieee")
    else:
        a = _matrix(A, M, K, stride, BM, BK)
        for k in range(0, K, BK):
            total = tl.dot(a.load([pm * BM, k]), b.load([k, pn * BN]), total, input_precision="ieee")
    out = _matrix(OUT, M, H, H, BM, BN // 2)
    left, right = _halves(total, BM, BN)
    out.store([pm * BM, pn * BN], out.load([pm * BM, pn * BN]) + left)
    out.store([pm * BM, pn * BN + BN // 2], out.load([pm * BM, pn * BN + BN // 2]) + right)
