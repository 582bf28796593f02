"""Triton's interpreter in half the time, with a multiply-add that rounds once as a GPU's does.

A launch replaces the functions of ``triton.language`` by those of the interpreter. Triton 3.7 does
so again at every call of a device function, after it has gone through all that the language has.
"""

import functools
import inspect
from types import SimpleNamespace

import numpy as np


def patch_once_a_launch():
    """Let a launch patch the language once, and remember what there is to patch."""
    from triton.runtime import interpreter

    if not all(hasattr(interpreter, name) for name in ("_patch_lang", "_patch_builtin")):
        return  # another release of Triton: as slow as it is
    patch, language = interpreter._patch_lang, interpreter.tl
    # Both names by which a module may know the language, whichever the launched kernel's has.
    both = SimpleNamespace(__globals__={"tl": language, "core": language.core})
    running = []

    @functools.cache
    def builtins(owner):
        members = inspect.getmembers(owner)
        return [(name, value) for name, value in members if language.core.is_builtin(value)]

    def patch_builtin(owner, builder, scope):
        for name, value in builtins(owner):
            interpreter._patch_attr(owner, name, value, builder, scope)

    def patch_lang(function):
        if running:
            return interpreter._LangPatchScope()
        scope = patch(both)
        running.append(scope)
        return SimpleNamespace(restore=lambda: (scope.restore(), running.clear()))

    interpreter._patch_builtin, interpreter._patch_lang = patch_builtin, patch_lang
    interpreter._get_np_dtype = _by_name(interpreter._get_np_dtype)


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
            total = d.data.copy()
            for k in range(left.shape[1]):
                total += left[:, k, None] * right[None, k]
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


def _by_name(numpy_dtype):
    seen = {}

    def look_up(dtype):
        name = dtype.scalar.name
        if name not in seen:
            seen[name] = numpy_dtype(dtype)
        return seen[name]

    return look_up
