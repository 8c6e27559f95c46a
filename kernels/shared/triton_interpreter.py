"""Fixes Triton's interpreter (TRITON_INTERPRET=1) for bfloat16 and FP8 on CPU; used by tests only.

The interpreter of Triton 3.6 to 3.9 stores bfloat16 as bit patterns and computes with these bits, truncates float32 to
bfloat16, and loses the mantissa carry of float32 to FP8, all silently (triton-lang/triton issues 11584 and 11604).
This module widens such operands to float32, computes, and rounds the result. That of Triton 3.6 also fails with numpy
2.4 or newer (issue 9171). The module patches private classes, so `tests/kernels/interpreted/check_interpreter_fix.py`
must pass for every new Triton or numpy. An interpreter cannot show races, missing barriers, layouts, tf32 or the error
of ex2.approx.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.autotuner import Autotuner

TORCH = {
    tl.bfloat16: torch.bfloat16,
    tl.float16: torch.float16,
    tl.float32: torch.float32,
    tl.float64: torch.float64,
    tl.float8e4nv: torch.float8_e4m3fn,
    tl.float8e5: torch.float8_e5m2,
}
NUMPY = {tl.float16: np.float16, tl.float32: np.float32, tl.float64: np.float64}
FP8 = (tl.float8e4nv, tl.float8e5)
NARROW = (tl.bfloat16, *FP8)
BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
COMPARE = {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal}
BITWISE = {np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.left_shift, np.right_shift}
Handle, Builder = interpreter.TensorHandle, interpreter.InterpreterBuilder


def install() -> None:
    """Patch the interpreter of this process once. Set TRITON_INTERPRET=1 before any kernel module is imported."""
    if getattr(interpreter, "_narrow_floats_fixed", False):
        return
    stock_convert = interpreter._convert_float
    interpreter._convert_float = lambda data, source, target, rounding: (
        _convert(data, source, target)
        if source in TORCH and target in TORCH
        else stock_convert(data, source, target, rounding)
    )
    _fix_dot()
    _fix_elementwise()
    _fix_cast()
    _fix_index()
    for reduction in (interpreter.ReduceOps, interpreter.ScanOps):
        _fix_reduction(reduction)
    Autotuner.run = _run_first_configuration
    interpreter._narrow_floats_fixed = True


def _convert(data, source, target):
    """Convert bits or floats of dtype `source` to bits of dtype `target`, rounding to nearest even as torch does."""
    data = np.asarray(data)
    value = _as_torch(data.reshape(-1), source)
    if target in FP8:
        value = _saturate(value, TORCH[target])
    return _as_bits(value.to(TORCH[target])).reshape(data.shape)


def _as_torch(array, dtype):
    array = np.ascontiguousarray(array)
    if dtype == tl.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    if dtype in FP8:
        return torch.from_numpy(array.view(np.uint8)).view(TORCH[dtype])
    return torch.from_numpy(array.view(NUMPY[dtype]))


def _as_bits(tensor):
    carrier = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.view(carrier).numpy().view(BITS[tensor.element_size()])


def _saturate(tensor, target):
    """Saturate like PTX cvt.rn.satfinite: finite overflow becomes the largest finite value; e4m3 has no infinity."""
    tensor = tensor.float()
    limit = torch.finfo(target).max
    tensor = torch.where(tensor.isfinite(), tensor.clamp(-limit, limit), tensor)
    return torch.where(tensor.isinf(), tensor.sign() * limit, tensor) if target == torch.float8_e4m3fn else tensor


def _widen(handle):
    if handle.dtype.scalar not in NARROW:
        return handle
    return Handle(_convert(handle.data, handle.dtype.scalar, tl.float32).view(np.float32), tl.float32)


def _narrow(handle, dtype):
    return Handle(_convert(handle.data, tl.float32, dtype).view(interpreter._get_np_dtype(dtype)), dtype)


def _fix_dot() -> None:
    stock_dot = Builder.create_dot

    def operand(handle):
        if handle.dtype.scalar == tl.float16:
            return Handle(handle.data.astype(np.float32), tl.float32)
        return _widen(handle)

    def dot(self, a, b, accumulator, *options):
        return stock_dot(self, operand(a), operand(b), accumulator, *options)

    Builder.create_dot = dot


def _fix_elementwise() -> None:
    stock_binary, stock_unary, stock_fma = Builder.binary_op, Builder.unary_op, Builder.create_fma

    def binary(self, left, right, op):
        dtype = left.dtype.scalar
        if dtype not in NARROW or op in BITWISE:
            return stock_binary(self, left, right, op)
        result = op(_widen(left).data, _widen(right).data)
        if op in COMPARE:
            return Handle(result, tl.int1)
        return _narrow(Handle(result.astype(np.float32), tl.float32), dtype)

    def unary(self, argument, op):
        dtype = argument.dtype.scalar
        if dtype not in NARROW:
            return stock_unary(self, argument, op)
        return _narrow(Handle(op(_widen(argument).data), tl.float32), dtype)

    def fma(self, x, y, z):
        dtype = z.dtype.scalar
        if dtype not in NARROW:
            return stock_fma(self, x, y, z)
        return _narrow(stock_fma(self, _widen(x), _widen(y), _widen(z)), dtype)

    Builder.binary_op, Builder.unary_op, Builder.create_fma = binary, unary, fma


def _fix_cast() -> None:
    stock_cast = Builder.cast_impl

    def cast(self, value, destination):
        source, target = value.dtype.scalar, destination.scalar
        if source not in NARROW and target not in NARROW:
            return stock_cast(self, value, destination)
        if target not in TORCH:  # cast to an integer
            return stock_cast(self, _widen(value), destination)
        if source not in TORCH:  # cast from an integer
            return _narrow(stock_cast(self, value, tl.float32), target)
        return Handle(_convert(value.data, source, target).view(interpreter._get_np_dtype(target)), target)

    Builder.cast_impl = cast


def _fix_index() -> None:
    """Scalars are arrays of size 1, of which numpy 2.4 makes no Python integer."""
    stock_patch = interpreter._patch_lang_tensor

    def patch(tensor, scope):
        stock_patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch


def _fix_reduction(cls) -> None:
    stock_apply = cls.apply_impl

    def retype(handle, dtype, shape):
        return tl.core.tensor(handle, tl.block_type(dtype, list(shape)) if shape else dtype)

    def apply(self, inputs):
        dtypes = [tensor.dtype.scalar for tensor in inputs]
        if not any(dtype in NARROW for dtype in dtypes):
            return stock_apply(self, inputs)
        outputs = stock_apply(
            self,
            tuple(
                retype(_widen(t.handle), t.handle.dtype.scalar if d not in NARROW else tl.float32, t.shape)
                for t, d in zip(inputs, dtypes, strict=True)
            ),
        )
        if not isinstance(outputs, list | tuple):
            outputs = (outputs,)
        return [
            retype(_narrow(out.handle, dtype), dtype, out.shape)
            if dtype in NARROW and out.dtype.scalar == tl.float32
            else out
            for out, dtype in zip(outputs, dtypes, strict=True)
        ]

    cls.apply_impl = apply


def _run_first_configuration(self, *args, **kwargs):
    """Run an autotuned kernel once with its first configuration; nothing is timed."""
    config = self.best_config = self.configs[0]
    settings = config.all_kwargs()
    self.nargs = dict(zip(self.arg_names, args, strict=False))
    if config.pre_hook:
        config.pre_hook({**self.nargs, **kwargs, **settings})
    try:
        return self.fn.run(*args, **{**kwargs, **settings})
    finally:
        self.nargs = None
