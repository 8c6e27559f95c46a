"""Triton kernels over rows of given logits: one program per row, which reads its row once per pass.

Names: T rows of the logits, N supervised rows, V columns. Row offsets are int64, because T x V easily exceeds 2**31.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
import triton
import triton.language as tl

from acc_megatron.kernels.shared import softmax_statistics

LOWEST_MAXIMUM = tl.constexpr(softmax_statistics.LOWEST_MAXIMUM)


@triton.jit
def row_statistics(
    LOGITS, ROWS, COLUMN, MAXIMUM, SUM_EXP, TARGET_LOGIT, MOMENT, V, stride, B: tl.constexpr, ENTROPY: tl.constexpr
):
    """Compute max z, sum e, the z of the target and sum (z - max) e of row ROWS[n], with e = exp(z - max)."""
    n = tl.program_id(0)
    row = LOGITS + tl.load(ROWS + n).to(tl.int64) * stride
    offsets = tl.arange(0, B)
    z = tl.load(row + offsets, mask=offsets < V, other=float("-inf")).to(tl.float32)
    maximum = tl.maximum(tl.max(z, 0), LOWEST_MAXIMUM)
    e = tl.exp(z - maximum)
    total = tl.sum(e, 0)
    moment = 0.0
    if ENTROPY:
        moment = tl.sum(tl.where(e > 0, (z - maximum) * e, 0.0), 0)
    for start in range(B, V, B):
        z = tl.load(row + start + offsets, mask=start + offsets < V, other=float("-inf")).to(tl.float32)
        larger = tl.maximum(maximum, tl.max(z, 0))
        scale = tl.exp(maximum - larger)
        e = tl.exp(z - larger)
        if ENTROPY:
            moment = (moment + (maximum - larger) * total) * scale
            moment += tl.sum(tl.where(e > 0, (z - larger) * e, 0.0), 0)
        total = total * scale + tl.sum(e, 0)
        maximum = larger
    column = tl.load(COLUMN + n)
    # a vector of size 1: the interpreter of Triton 3.9 does not accept a scalar comparison as a mask
    one = tl.arange(0, 1) + column
    target = tl.load(row + one, mask=one >= 0, other=0.0).to(tl.float32)
    tl.store(MAXIMUM + n, maximum)
    tl.store(SUM_EXP + n, total)
    tl.store(TARGET_LOGIT + n, tl.sum(target, 0))
    if ENTROPY:
        tl.store(MOMENT + n, moment)


@triton.jit
def row_gradient(LOGITS, SLOT, COLUMN, LOG_SUM_EXP, SOFTMAX_SCALE, TARGET_SCALE, V, stride, B: tl.constexpr):
    """Overwrite row t with its gradient from slot SLOT[t], or with zeros if the slot is -1."""
    t = tl.program_id(0).to(tl.int64)
    row = LOGITS + t * stride
    slot = tl.load(SLOT + t)
    if slot < 0:
        for start in range(0, V, B):
            offsets = start + tl.arange(0, B)
            tl.store(row + offsets, tl.zeros((B,), LOGITS.dtype.element_ty), mask=offsets < V)
    else:
        column = tl.load(COLUMN + slot)
        log_sum_exp = tl.load(LOG_SUM_EXP + slot)
        softmax_scale = tl.load(SOFTMAX_SCALE + slot)
        target_scale = tl.load(TARGET_SCALE + slot)
        for start in range(0, V, B):
            offsets = start + tl.arange(0, B)
            z = tl.load(row + offsets, mask=offsets < V, other=0.0).to(tl.float32)
            gradient = tl.exp(z - log_sum_exp) * softmax_scale
            gradient = tl.where(offsets == column, gradient - target_scale, gradient)
            tl.store(row + offsets, gradient.to(LOGITS.dtype.element_ty), mask=offsets < V)
