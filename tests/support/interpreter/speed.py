"""Triton's interpreter in a third of the time: the same functions, which remember what they found.

A launch replaces the functions of ``triton.language`` by those of the interpreter. Triton 3.7 does
so again at every call of a device function, after it has gone through all that the language has;
and each of its operations makes the types of its operands anew, of constants in tuples of its own,
and works out a check for overflows that it then leaves out.
"""

import dataclasses
import functools
import inspect
from types import SimpleNamespace

NEEDED = ("_patch_lang", "_patch_builtin", "_patch_attr", "_get_np_dtype", "interpreter_semantic")
MOST_CONSTANTS = 256  # of a block's size each


def speed_up():
    """Have the interpreter do things once that it does every time; say whether it does."""
    from triton.runtime import interpreter

    if not all(hasattr(interpreter, name) for name in NEEDED):
        return False  # another release of Triton: as slow as it is
    _patch_once_a_launch(interpreter)
    _remember_types(interpreter.tl.core)
    _remember_numpy_types(interpreter)
    _pass_what_agrees(interpreter.tl.core, type(interpreter.interpreter_semantic))
    builder = interpreter.interpreter_builder
    if not builder.options.debug:  # else overflows are asserted
        builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    return True


def _patch_once_a_launch(interpreter):
    patch, language = interpreter._patch_lang, interpreter.tl
    # Both names by which a module may know the language, whichever the launched kernel's has.
    both = SimpleNamespace(__globals__={"tl": language, "core": language.core})
    running = []

    @functools.cache
    def builtins(owner):
        members = inspect.getmembers(owner)
        members = [(name, value) for name, value in members if language.core.is_builtin(value)]
        return [(name, _with_semantic(interpreter, value)) for name, value in members]

    def patch_builtin(owner, builder, scope):
        for name, value in builtins(owner):
            scope.set_attr(owner, name, value)

    def patch_lang(function):
        if running:
            return interpreter._LangPatchScope()
        scope = patch(both)
        running.append(scope)
        return SimpleNamespace(restore=lambda: (scope.restore(), running.clear()))

    interpreter._patch_builtin, interpreter._patch_lang = patch_builtin, patch_lang


def _with_semantic(interpreter, function):
    semantic, checked = interpreter.interpreter_semantic, interpreter.tl.core.builtin(len)
    if function.__code__ is checked.__code__:
        function = function.__wrapped__  # which is only seen to be given a semantic

    def call(*args, _semantic=None, **keywords):
        return function(*args, _semantic=semantic, **keywords)

    return call


def _remember_types(core):
    """Let types be compared by name first, blocks know their shape, and tensors take it over."""
    unwrap, blocks, plain = core._unwrap_if_constexpr, {}, (list, tuple, core.tuple)

    def unwrap_if_constexpr(value):
        kind = type(value)
        if kind is core.constexpr:
            return value.value
        return unwrap(value) if isinstance(value, plain) else value

    def equals(self, other):
        if self is other:
            return True
        other = unwrap_if_constexpr(other)
        return isinstance(other, core.dtype) and self.name == other.name

    make_block = core.block_type.__init__

    def block(cls, element_ty, shape):
        if element_ty.is_ptr():
            return object.__new__(cls)
        sizes = shape.values if isinstance(shape, core.tuple) else shape
        key = element_ty.name, *[unwrap_if_constexpr(size) for size in sizes]
        if key not in blocks:
            blocks[key] = object.__new__(cls)
        return blocks[key]

    def make_block_once(self, element_ty, shape):
        if "numel" not in self.__dict__:
            make_block(self, element_ty, shape)

    def with_element_ty(self, scalar_ty):
        others = self.__dict__.setdefault("others", {})
        if scalar_ty.name not in others:
            made = core.block_type(scalar_ty, self.shape)
            if scalar_ty.is_ptr():
                return made
            others[scalar_ty.name] = made
        return others[scalar_ty.name]

    make_tensor = core.tensor.__init__

    def make_tensor_of(self, handle, type):
        known = type.__dict__
        if "of_tensor" not in known:
            make_tensor(self, handle, type)
            known["of_tensor"] = self.shape, self.numel, self.dtype
        self.handle, self.type = handle, type
        self.shape, self.numel, self.dtype = known["of_tensor"]

    core._unwrap_if_constexpr, core.dtype.__eq__ = unwrap_if_constexpr, equals
    core.block_type.__new__, core.block_type.__init__ = block, make_block_once
    core.block_type.with_element_ty = with_element_ty
    core.tensor.__init__ = make_tensor_of


def _remember_numpy_types(interpreter):
    numpy_dtype, seen = interpreter._get_np_dtype, {}

    def look_up(dtype):
        name = dtype.scalar.name
        if name not in seen:
            seen[name] = numpy_dtype(dtype)
        return seen[name]

    interpreter._get_np_dtype = look_up


def _pass_what_agrees(core, semantic):
    """Let operands of one type be, and keep what a number became beside a tensor of some type."""
    check = semantic.binary_op_type_checking_impl
    check_bits = semantic.bitwise_op_type_checking_impl
    broadcast = semantic.broadcast_impl_value
    constants = {}

    def check_types(self, lhs, rhs, *rules, **named):
        left, right = type(lhs) is core.tensor, type(rhs) is core.tensor
        if left and right:
            if lhs.type is rhs.type and len(rules) < 3 and not named and not lhs.dtype.is_ptr():
                return lhs, rhs
            return check(self, lhs, rhs, *rules, **named)
        tensor, number = (lhs, rhs) if left else (rhs, lhs)
        if not (left or right) or type(number) not in (int, float) or tensor.dtype.is_ptr():
            return check(self, lhs, rhs, *rules, **named)
        key = repr(number), tensor.type.name, left, rules, *named.items()
        if key not in constants:
            made = check(self, lhs, rhs, *rules, **named)
            if made[not left] is not tensor:
                return made
            if len(constants) == MOST_CONSTANTS:
                constants.clear()
            constants[key] = made[left]
            constants[key].handle.data.setflags(write=False)
        return (tensor, constants[key]) if left else (constants[key], tensor)

    def check_bit_types(self, lhs, rhs):
        lhs, rhs = check_types(self, lhs, rhs)
        if lhs.dtype is rhs.dtype and lhs.dtype.is_int():
            return lhs, rhs
        return check_bits(self, lhs, rhs)

    def broadcast_values(self, lhs, rhs):
        return (lhs, rhs) if lhs.type is rhs.type else broadcast(self, lhs, rhs)

    semantic.binary_op_type_checking_impl = check_types
    semantic.bitwise_op_type_checking_impl = check_bit_types
    semantic.broadcast_impl_value = broadcast_values
