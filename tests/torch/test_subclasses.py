"""Tensor subclasses: the plain tensor's decisions in the subclass, or torch's own refusal."""

import pytest
import torch
from torch.masked import as_masked_tensor
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._pytree import tree_map_only

import rskernels

from ..support.bits import same_bits

TARGETS = torch.tensor([3, 0, 6, 2])


def draw_logits():
    return torch.randn(4, 7, generator=torch.Generator().manual_seed(0))


def call_all(logits, targets=TARGETS, p_hat=0.2, M=1.5, seed=3):
    """Return every tensor that the public operations make of these."""
    law = {"seed": seed, "temperature": 0.7}
    return (
        *rskernels.accept(logits, p_hat, M, targets=targets, **law),
        *rskernels.verify(logits, p_hat, M, targets=None, **law),
        rskernels.accept_mask(logits, p_hat, M, targets=targets, **law),
        rskernels.verify_mask(logits, p_hat, M, targets=None, **law),
        rskernels.bernoulli_mask(logits, M, seed=seed),
        *rskernels.bernoulli(logits, M, seed=seed),
        rskernels.target_log_prob(logits, targets),
    )


class Named(torch.Tensor):
    """A subclass that leaves everything to torch's default."""


class Logged(torch.Tensor):
    """A subclass that notes what is called on it."""

    calls = ()

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        Logged.calls += (str(function),)
        return super().__torch_function__(function, types, args, kwargs or {})


class Wrapped(torch.Tensor):
    """A tensor without memory of its own around one that has."""

    calls = ()

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype
        )

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        Wrapped.calls += (str(function),)
        args, kwargs = tree_map_only(Wrapped, lambda part: part.inner, (args, kwargs or {}))
        return tree_map_only(torch.Tensor, Wrapped, function(*args, **kwargs))


class Opaque(Wrapped):
    """A wrapper that knows no operator."""

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return NotImplemented


def unwrapped(parts):
    return [
        part.inner if isinstance(part, Wrapped) else part.as_subclass(torch.Tensor)
        for part in parts
    ]


def test_parameters():
    parameter = torch.nn.Parameter(draw_logits())
    seen = call_all(parameter)
    assert same_bits(seen, call_all(draw_logits()))
    assert [part.requires_grad for part in seen] == [False, True, *[False] * 16, True]
    assert not any(isinstance(part, torch.nn.Parameter) for part in seen)
    buffer = torch.nn.Buffer(draw_logits())
    assert same_bits(call_all(buffer), call_all(draw_logits()))
    M = torch.nn.Parameter(torch.tensor(1.5))
    assert not any(part.requires_grad for part in call_all(draw_logits(), M=M))


@pytest.mark.parametrize("kind", [Named, Logged])
def test_subclasses_that_keep_memory(kind):
    seen = call_all(draw_logits().as_subclass(kind))
    assert all(type(part) is kind for part in seen)
    assert same_bits(unwrapped(seen), call_all(draw_logits()))
    leaf = draw_logits().as_subclass(kind).requires_grad_()
    rskernels.target_log_prob(leaf, TARGETS).sum().backward()
    plain = draw_logits().requires_grad_()
    rskernels.target_log_prob(plain, TARGETS).sum().backward()
    assert same_bits(leaf.grad.as_subclass(torch.Tensor), plain.grad)


def test_torch_function_sees_the_operators():
    Logged.calls = ()
    call_all(draw_logits().as_subclass(Logged))
    for name in ("mask", "decide", "bernoulli", "decide_ratios", "target_log_prob"):
        assert f"rskernels.{name}.default" in Logged.calls


def test_torch_dispatch_sees_the_operators():
    Wrapped.calls = ()
    seen = call_all(Wrapped(draw_logits()))
    assert all(type(part) is Wrapped for part in seen)
    assert same_bits(unwrapped(seen), call_all(draw_logits()))
    for name in ("mask", "decide", "bernoulli", "decide_ratios", "target_log_prob"):
        assert f"rskernels.{name}.default" in Wrapped.calls


@pytest.mark.parametrize("name", ["targets", "p_hat", "M", "seed", "temperature"])
def test_a_wrapper_among_the_other_arguments(name):
    value = {"targets": TARGETS, "seed": torch.tensor(3)}.get(name, torch.tensor(0.3))
    law = {"p_hat": 0.2, "M": 1.5, "seed": 3, "targets": TARGETS}
    got = rskernels.accept(draw_logits(), **{**law, name: Wrapped(value)})
    want = rskernels.accept(draw_logits(), **{**law, name: value})
    assert same_bits(unwrapped(got), want)


def test_the_gradient_of_a_wrapper():
    leaf = Wrapped(draw_logits()).requires_grad_()
    (got,) = torch.autograd.grad(rskernels.target_log_prob(leaf, TARGETS).sum(), leaf)
    plain = draw_logits().requires_grad_()
    (want,) = torch.autograd.grad(rskernels.target_log_prob(plain, TARGETS).sum(), plain)
    assert same_bits(got.inner, want)


def test_a_wrapper_that_knows_no_operator_is_refused():
    for logits, p_hat in ((Opaque(draw_logits()), 0.2), (draw_logits(), Opaque(torch.rand(())))):
        with pytest.raises(TypeError, match=r"rskernels.mask.default.*returned NotImplemented"):
            rskernels.accept_mask(logits, p_hat, 1.5, targets=TARGETS, seed=0)


def test_ragged_tensors_are_refused():
    ragged = torch.nested.nested_tensor([draw_logits(), draw_logits()[:2]], layout=torch.jagged)
    for call in (
        lambda: rskernels.accept_mask(ragged, 0.2, 1.0, seed=0),
        lambda: rskernels.bernoulli_mask(ragged, seed=0),
        lambda: rskernels.target_log_prob(ragged, TARGETS),
    ):
        with pytest.raises(TypeError, match="must be a strided tensor, got a nested one"):
            call()
    # Their values are one plain tensor of all rows.
    assert rskernels.accept_mask(ragged.values(), 0.2, 1.0, seed=0).shape == (6, 7)


@pytest.mark.parametrize("name", ["logits", "targets", "p_hat", "M", "seed", "temperature"])
def test_a_mask_is_not_lost(name):
    value = {"logits": draw_logits(), "targets": TARGETS, "seed": torch.tensor([3])}
    value = value.get(name, torch.full((4,), 0.3))
    law = {"logits": draw_logits(), "targets": TARGETS, "p_hat": 0.2, "M": 1.5, "seed": 3}
    law[name] = as_masked_tensor(value, value > 0)
    message = f"{name} is a MaskedTensor, whose mask would be lost.*get_data.*ignore_index"
    with pytest.raises(TypeError, match=message):
        rskernels.accept(**law)
    if name in ("logits", "targets"):
        with pytest.raises(TypeError, match=message):
            rskernels.target_log_prob(law["logits"], law["targets"])
    if name == "M":
        with pytest.raises(TypeError, match=message):
            rskernels.bernoulli_mask(draw_logits()[:, 0], law["M"], seed=0)


@pytest.mark.parametrize("name", ["targets", "p_hat", "M", "seed", "temperature"])
@pytest.mark.parametrize("kind", ["sparse", "nested"])
def test_other_arguments_without_strides_are_refused(name, kind):
    value = {"targets": TARGETS, "seed": torch.tensor([3])}.get(name, torch.full((4,), 0.3))
    value = value.to_sparse() if kind == "sparse" else torch.nested.nested_tensor([value])
    law = {"targets": TARGETS, "p_hat": 0.2, "M": 1.5, "seed": 3, name: value}
    with pytest.raises((TypeError, ValueError), match=r"strided|one element"):
        rskernels.accept_mask(draw_logits(), **law)
    if name == "targets":
        with pytest.raises(TypeError, match="targets must be a strided tensor"):
            rskernels.target_log_prob(draw_logits(), value)


class Tagged(torch.Tensor):
    """A subclass with an attribute, which torch's operators leave behind."""

    tag = None


def test_attributes_go_the_way_of_torch_operators():
    logits = draw_logits().as_subclass(Tagged)
    logits.tag = "epoch 3"
    mask = rskernels.accept_mask(logits, 0.2, 1.5, targets=TARGETS, seed=3)
    assert type(mask) is Tagged
    assert mask.tag == (logits > 0).tag is None
    assert logits.tag == "epoch 3"


def test_a_compiled_wrapper():
    pair = TwoTensor(draw_logits(), -draw_logits())
    call = torch.compile(call_all, fullgraph=True, backend="aot_eager")
    seen = call(pair)
    for part, a, b in zip(seen, call_all(pair.a), call_all(pair.b), strict=True):
        assert same_bits((part.a, part.b), (a, b))
    torch._dynamo.reset()


def test_functionalized_calls():
    want = call_all(draw_logits())
    assert same_bits(torch.func.functionalize(call_all)(draw_logits()), want)
