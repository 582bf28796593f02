"""Triton's interpreter, many programs at a time: the same operations, on arrays with an axis more.

What differs between programs has their axis in front: a block [.., N] is [programs, .., N], and a
number [programs, 1]. What all share is as it was, for arrays are broadcast from behind. Where a
condition or the end of a loop differs, what the programs wrote is undone, and each of its values
is run from the start by those that have it. No kernel here reads what another program writes.
"""

import inspect

import numpy as np

ELEMENTS = 1 << 17  # of an array: as many programs as leave it in a core's cache
SCANS = {"_sum_combine": np.cumsum, "_prod_combine": np.cumprod}
REDUCTIONS = {
    "_sum_combine": np.sum, "_elementwise_max": np.nanmax, "_elementwise_min": np.nanmin,
}  # fmt: skip


class Differs(BaseException):  # not an Exception, which the interpreter would wrap
    """Raised where programs go different ways, with a value of each."""


def numbers(size):
    """Return the programs that are run along an axis of a grid: all, unless a test says others."""
    return range(size)


class Programs:
    """The programs that are run, and what they have written."""

    def __init__(self, interpreter, builder):
        self._interpreter, self._builder = interpreter, builder
        self._written = []
        self.index = None  # [3, programs] while there are several

    def run(self, kernel, arguments, grid, at_a_time):
        """Run all programs of a grid."""
        self._builder.grid_dim = grid
        axes = np.meshgrid(*[list(numbers(size)) for size in grid], indexing="ij")
        index = np.stack([axis.reshape(-1) for axis in axes])
        for start in range(0, index.shape[1], at_a_time):
            self._run_those(kernel, arguments, index[:, start : start + at_a_time])

    def _run_those(self, kernel, arguments, index):
        self._builder.grid_idx = tuple(map(int, index[:, 0]))
        if index.shape[1] == 1:
            self.index = None
            kernel(**arguments)
            return
        self.index, self._written = index.astype(np.int32), []
        try:
            kernel(**arguments)
            return
        except Differs as difference:
            (values,) = difference.args
            self._undo()
        finally:
            self.index, self._written = None, []
        for value in np.unique(values):
            self._run_those(kernel, arguments, index[:, values == value])

    def note(self, pointers, mask, dtype):
        """Keep what lies where programs are about to write."""
        nothing = np.zeros(pointers.shape, dtype)
        before = self._interpreter.load(pointers, mask, nothing, dtype)
        self._written.append((pointers, before, mask))

    def _undo(self):
        for pointers, before, mask in reversed(self._written):
            self._interpreter.store(pointers, before, mask)


def run_together():
    """Have a launch run many of its programs at a time."""
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    programs = Programs(interpreter._interpreter, builder)
    _launch(interpreter.GridExecutor, programs)
    _memory(interpreter, programs)
    _shapes(interpreter)
    _reductions(interpreter)
    _conditions(interpreter)


def _launch(executor, programs):
    call = executor.__call__

    def call_together(self, *args, **keywords):
        kernel, grid = self.fn, self.grid
        if callable(grid):
            return call(self, *args, **keywords)
        sizes = [v for k in self.constexprs if type(v := keywords.get(k)) is int]
        width = int(np.prod(sorted([1, *sizes])[-2:]))
        at_a_time = max(1, ELEMENTS // width)

        def run(**arguments):
            programs.run(kernel, arguments, (*grid, 1, 1)[:3], at_a_time)

        run.__signature__ = inspect.signature(kernel)
        self.fn, self.grid = run, (1,)
        return call(self, *args, **keywords)

    executor.__call__ = call_together


def _memory(interpreter, programs):
    Builder, Handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    load, store = Builder.create_masked_load, Builder.create_masked_store
    program_id, tl = Builder.create_get_program_id, interpreter.tl

    def create_get_program_id(self, axis):
        if programs.index is None:
            return program_id(self, axis)
        return Handle(programs.index[axis][:, None], tl.int32)

    def spread(*handles):
        arrays = np.broadcast_arrays(*[handle.data for handle in handles])
        return [Handle(a, handle.dtype) for a, handle in zip(arrays, handles, strict=True)]

    def create_masked_load(self, ptrs, mask, other, *options):
        if programs.index is not None:
            if other is None:
                ptrs, mask = spread(ptrs, mask)
            else:
                ptrs, mask, other = spread(ptrs, mask, other)
        return load(self, ptrs, mask, other, *options)

    def create_masked_store(self, ptrs, value, mask, *options):
        if programs.index is not None:
            ptrs, value, mask = spread(ptrs, value, mask)
            programs.note(ptrs.data, mask.data, value.data.dtype)
        return store(self, ptrs, value, mask, *options)

    def refuse(self, *args, **keywords):
        raise NotImplementedError("atomic operations of programs that are run together")

    Builder.create_get_program_id = create_get_program_id
    Builder.create_masked_load, Builder.create_masked_store = (
        create_masked_load,
        create_masked_store,
    )
    Builder.create_atomic_cas = Builder.create_atomic_rmw = refuse


def _shapes(interpreter):
    Builder, Handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    Semantic = type(interpreter.interpreter_semantic)
    splat, broadcast, transpose = (
        Builder.create_splat, Builder.create_broadcast, Builder.create_trans
    )  # fmt: skip

    def create_splat(self, ret_ty, arg):
        if arg.data.ndim == 1:
            return splat(self, ret_ty, arg)
        shape = tuple(ret_ty.shape)
        data = arg.data.reshape(-1, *[1] * len(shape))
        return Handle(np.broadcast_to(data, (len(data), *shape)), arg.dtype.scalar)

    def create_broadcast(self, arg, shape):
        if arg.data.ndim > len(shape):
            shape = (len(arg.data), *shape)
        return broadcast(self, arg, tuple(shape))

    def create_reshape(self, arg, shape, allow_reorder):
        several = [] if arg.data.size == np.prod(shape, dtype=int) else [len(arg.data)]
        return Handle(arg.data.reshape(*several, *shape), arg.dtype.scalar)

    def create_trans(self, arg, perm):
        if arg.data.ndim > len(perm):
            perm = [0, *[1 + axis for axis in perm]]
        return transpose(self, arg, perm)

    def create_join(self, lhs, rhs):
        both = np.broadcast_arrays(lhs.data, rhs.data)
        return Handle(np.stack(both, axis=-1), lhs.dtype.scalar)

    def expand_dims(self, input, axis):
        shape = [int(size) for size in input.shape]
        shape.insert(axis, 1)
        if not input.type.is_block():
            return self.splat(input, shape=shape)
        # Counted from behind, the axis is the same whether or not programs are in front.
        handle = self.builder.create_expand_dims(input.handle, axis - len(shape))
        return self.tensor(handle, interpreter.tl.block_type(input.type.scalar, shape))

    Builder.create_splat, Builder.create_broadcast = create_splat, create_broadcast
    Builder.create_reshape, Builder.create_trans = create_reshape, create_trans
    Builder.create_join, Semantic.expand_dims = create_join, expand_dims


def _reductions(interpreter):
    patch, tl = interpreter._patch_reduce_scan, interpreter.tl
    Handle = interpreter.TensorHandle

    def is_several(value):
        return value.handle.data.ndim > max(1, len(value.shape))

    def named(functions, combine):
        for name, function in functions.items():
            if combine == getattr(tl.standard, name):
                return function
        raise NotImplementedError(f"{combine} of programs that are run together")

    def of_shape(data, shape, like):
        handle = Handle(data.astype(like.handle.data.dtype, copy=False), like.dtype.scalar)
        return tl.core.tensor(handle, tl.block_type(like.dtype, shape) if shape else like.dtype)

    def reduced(value, axis, combine, keep_dims):
        data, shape = value.handle.data, [int(size) for size in value.shape]
        kept = [1] * len(shape) if axis is None else [*shape[:axis], 1, *shape[axis + 1 :]]
        left = kept if keep_dims else [] if axis is None else [*shape[:axis], *shape[axis + 1 :]]
        if axis is None:
            data, axis = data.reshape(len(data), -1), 0
        data = named(REDUCTIONS, combine)(data, axis=1 + axis)
        return of_shape(data.reshape(len(data), *(left or [1])), left, value)

    def patch_reduce_scan(scope):
        patch(scope)
        reduce, scan = tl.reduce, tl.associative_scan

        def reduce_together(input, axis, combine_fn, keep_dims=False, **options):
            if isinstance(input, tl.core.tensor) and is_several(input):
                return reduced(input, axis, combine_fn, keep_dims)
            return reduce(input, axis, combine_fn, keep_dims, **options)

        def scan_together(input, axis, combine_fn, reverse=False, **options):
            if not (isinstance(input, tl.core.tensor) and is_several(input)):
                return scan(input, axis, combine_fn, reverse, **options)
            data = np.flip(input.handle.data, 1 + axis) if reverse else input.handle.data
            data = named(SCANS, combine_fn)(data, axis=1 + axis)
            data = np.flip(data, 1 + axis) if reverse else data
            return of_shape(data, [int(size) for size in input.shape], input)

        for module in (tl, tl.core):
            scope.set_attr(module, "reduce", reduce_together)
            scope.set_attr(module, "associative_scan", scan_together)

    interpreter._patch_reduce_scan = patch_reduce_scan


def _conditions(interpreter):
    patch = interpreter._patch_lang_tensor

    def agreed(data):
        values = data.reshape(-1)
        if len(values) > 1 and (values != values[0]).any():
            raise Differs(values)
        return values[0]

    def patch_lang_tensor(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(
            tensor, "__bool__",
            lambda self: bool(agreed(self.handle.data)) if self.numel == 1 else True,
        )  # fmt: skip
        scope.set_attr(tensor, "__index__", lambda self: int(agreed(self.handle.data)))

    interpreter._patch_lang_tensor = patch_lang_tensor
