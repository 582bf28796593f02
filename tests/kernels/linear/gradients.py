"""Gradients of a product's parts: ours, and those of float64 autograd."""

import torch

from rskernels.kernels import reference
from rskernels.kernels.cpu import linear
from rskernels.kernels.product import Lora, Wanted

ALL = Wanted(True, True, True, True, True)


def parts_of(product):
    A, B, _ = product.lora or (None, None, 0.0)
    return [product.hidden, product.weight, product.bias, A, B]


def with_parts(product, parts):
    hidden, weight, bias, A, B = parts
    lora = None if product.lora is None else Lora(A, B, product.lora.scale)
    return product._replace(hidden=hidden, weight=weight, bias=bias, lora=lora)


def derived(product, upstream, log_prob_of):
    """Return the gradients that autograd finds, None where there is no part."""
    leaves = [None if part is None else part.clone().requires_grad_() for part in parts_of(product)]
    log_prob = log_prob_of(with_parts(product, leaves))
    given = [leaf for leaf in leaves if leaf is not None]
    found = iter(torch.autograd.grad(log_prob, given, upstream))
    return [None if leaf is None else next(found) for leaf in leaves]


def truth(product, targets, upstream, temperature=1.0, ignore_index=-100):
    wide = with_parts(product, [None if p is None else p.double() for p in parts_of(product)])
    call = reference.linear.target_log_prob
    return derived(
        wide, upstream.double(), lambda made: call(made, targets, temperature, ignore_index)
    )


def backward(product, targets, upstream, temperature=1.0, ignore_index=-100, wanted=ALL):
    _, totals = linear.target_log_prob(product, targets, temperature, ignore_index)
    return linear.target_log_prob_backward(
        upstream, product, targets, totals, temperature, ignore_index, wanted
    )


def draw_upstream(targets, dtype):
    generator = torch.Generator().manual_seed(1)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.randn(targets.shape, generator=generator, dtype=wide)


def errors(got, want):
    """Return each gradient's error as a part of its norm."""
    pairs = [(one, other) for one, other in zip(got, want, strict=True) if other is not None]
    return [((one.double() - other).norm() / other.norm()).item() for one, other in pairs]


def assert_close(got, product, want, most):
    for one, part in zip(got, parts_of(product), strict=True):
        assert (one is None) == (part is None)
        assert part is None or (one.shape, one.dtype) == (part.shape, part.dtype)
    assert max(errors(got, want)) <= most, errors(got, want)
