"""Triton's interpreter with a GPU's arithmetic: a multiply-add that rounds once, and wide dots."""

import numpy as np


def fuse_multiply_add():
    """Let ``tl.fma`` of float32 round once; the interpreter multiplies, rounds, and adds."""
    from triton.runtime import interpreter

    def create_fma(self, x, y, z):
        with np.errstate(all="ignore"):
            wide = (x.data.astype(np.float64) * y.data + z.data).astype(z.data.dtype)
        return interpreter.TensorHandle(wide, z.dtype.scalar)

    interpreter.InterpreterBuilder.create_fma = create_fma


def accumulate_dots():
    """Let ``tl.dot`` take bfloat16, and add wide: an element's bits are then its place's no more.

    The interpreter multiplies the integers that hold a bfloat16, and by BLAS, which adds an element
    of a tile's edge in another order than one of its middle; a tensor core adds all alike.
    """
    from triton.runtime import interpreter

    def create_dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        left, right = (_widened(side) for side in (a, b))
        if d.data.dtype == np.float64:
            total = d.data
            for k in range(left.shape[-1]):
                total = total + left[..., k, None] * right[..., None, k, :]
        else:
            with np.errstate(all="ignore"):
                total = (left @ right + d.data).astype(d.data.dtype)
        return interpreter.TensorHandle(total, d.dtype.scalar)

    interpreter.InterpreterBuilder.create_dot = create_dot


def round_bfloat16():
    """Let a float32 become the nearest bfloat16; the interpreter loses a carry."""
    from triton.runtime import interpreter

    convert, tl = interpreter._convert_float, interpreter.tl

    def convert_float(values, from_dtype, to_dtype, rounding_mode):
        if (from_dtype, to_dtype) != (tl.float32, tl.bfloat16):
            return convert(values, from_dtype, to_dtype, rounding_mode)
        bits = np.ascontiguousarray(values).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)

    interpreter._convert_float = convert_float


def _widened(tile):
    if tile.dtype.scalar.name == "bf16":
        return (tile.data.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return tile.data.astype(np.float64)
