"""The forms of a decision, each called so that it accepts with a given probability.

Logits are one row repeated without memory. Every form has a temperature, where it takes one, and
an M, so that a form which left out either would accept at another rate. Where only the mask is
wanted, the target's decision stops reading a row as soon as it is certain.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from rskernels.kernels import reference
from rskernels.kernels.product import Lora, Product

TEMPERATURE = 0.6
TEMPERATURES = torch.tensor([TEMPERATURE, 2.5])  # of rows in turns
ROW = torch.tensor([0.0, 1.0, -0.5])
# Long enough to be decided before its end.
LONG_ROW = torch.sin(torch.arange(float(1 << 14)))
TARGET = 0  # neither the largest logit nor the smallest
ENTRIES = 3 * torch.sin(torch.arange(float(1 << 12)))
BLOCK = 1 << 20  # decisions a call: a mask that stays in the cache


def _make_product():
    """Return hidden states and a weight that make logits of every kind: eight rows, five blocks."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    lora = Lora(draw(3, 16) / 4, draw(700, 3) / 2, 2.0)
    return Product(draw(8, 16), draw(700, 16) / 4, draw(700) / 2, 1.6, 3.0, lora)


PRODUCT = _make_product()
PRODUCT_LOG_Q = (reference.linear.logits_of(PRODUCT) / TEMPERATURE).log_softmax(-1)
# Of each row the column with the 100th largest logit.
PRODUCT_TARGETS = PRODUCT_LOG_Q.argsort(-1, descending=True)[:, 100].contiguous()


class Form(NamedTuple):
    """A form of the decision."""

    decide: Callable[..., torch.Tensor]
    """``(subject, rows, ratio, M, **law)``: the mask of ``rows`` rows, flat."""
    width: int
    """Decisions a row."""
    interpreted: int
    """Decisions that interpreted Triton takes in a second or two."""
    block: int = BLOCK
    """Decisions a call: the reference holds their rows in float64, a few times over."""


def target(subject, rows, ratio, M, *, logits=ROW, model_is_target=False, **law):
    q = (logits / TEMPERATURE).softmax(0)[TARGET]
    density = q / (ratio * M) if model_is_target else ratio * M * q
    return subject.mask(
        logits.expand(rows, -1), torch.full((rows,), TARGET), density, M,
        temperature=TEMPERATURE, model_is_target=model_is_target, is_lazy=True, **law,
    )  # fmt: skip


def target_each(subject, rows, ratio, M, **law):
    temperature = TEMPERATURES.repeat(-(-rows // 2))[:rows]
    q = (ROW / temperature[:, None]).softmax(-1)[:, TARGET]
    return subject.mask(
        ROW.expand(rows, -1), torch.full((rows,), TARGET), ratio * M * q, M,
        temperature=temperature, is_lazy=True, **law,
    )  # fmt: skip


def verify(subject, rows, ratio, M, **law):
    return target(subject, rows, ratio, M, model_is_target=True, **law)


def dense(subject, rows, ratio, M, *, model_is_target=False, **law):
    q = (ENTRIES / TEMPERATURE).softmax(0)
    density = q / (ratio * M) if model_is_target else ratio * M * q
    return subject.mask(
        ENTRIES.expand(rows, -1), None, density, M,
        temperature=TEMPERATURE, model_is_target=model_is_target, **law,
    ).flatten()  # fmt: skip


def dense_each(subject, rows, ratio, M, **law):
    temperature = TEMPERATURES.repeat(-(-rows // 2))[:rows]
    density = ratio * M * (ENTRIES / temperature[:, None]).softmax(-1)
    return subject.mask(
        ENTRIES.expand(rows, -1), None, density, M, temperature=temperature, **law
    ).flatten()


def dense_verify(subject, rows, ratio, M, **law):
    return dense(subject, rows, ratio, M, model_is_target=True, **law)


def linear(subject, rows, ratio, M, *, model_is_target=False, **law):
    which = torch.arange(rows) % len(PRODUCT.hidden)
    q = PRODUCT_LOG_Q.gather(-1, PRODUCT_TARGETS[:, None]).exp()[which, 0]
    density = q / (ratio * M) if model_is_target else ratio * M * q
    return subject.mask(
        PRODUCT._replace(hidden=PRODUCT.hidden[which]), PRODUCT_TARGETS[which], density, M,
        temperature=TEMPERATURE, model_is_target=model_is_target, is_lazy=True, **law,
    )  # fmt: skip


def linear_verify(subject, rows, ratio, M, **law):
    return linear(subject, rows, ratio, M, model_is_target=True, **law)


def bernoulli(subject, rows, ratio, M, **law):
    return subject.bernoulli(torch.full((rows,), math.log(ratio * M)), M, **law)


FORMS = {
    "target": Form(target, 1, 1 << 6),
    "verify": Form(verify, 1, 1 << 6),
    "dense": Form(dense, len(ENTRIES), 1 << 17),
    "dense_verify": Form(dense_verify, len(ENTRIES), 1 << 17),
    "bernoulli": Form(bernoulli, 1, 1 << 16),
}
# With a temperature of each row.
EACH_FORMS = {
    "target_each": Form(target_each, 1, 1 << 6),
    "dense_each": Form(dense_each, len(ENTRIES), 1 << 17),
}
# What lazy decisions read in part.
LONG_FORMS = {
    "long_target": Form(partial(target, logits=LONG_ROW), 1, 1 << 5, 1 << 13),
    "long_verify": Form(partial(verify, logits=LONG_ROW), 1, 1 << 5, 1 << 13),
}
# From hidden states: rows differ, and are packed together once others are decided.
LINEAR_FORMS = {
    "linear": Form(linear, 1, 1 << 9, 1 << 13),
    "linear_verify": Form(linear_verify, 1, 1 << 9, 1 << 13),
}


def blocks(form, subject, count, ratio, M=1.7, *, row_offset=0, **law):
    """Yield the masks of ``count`` decisions, block after block."""
    for start in range(0, count, form.block):
        rows = min(form.block, count - start) // form.width
        first = row_offset + start // form.width
        yield form.decide(subject, rows, ratio, M, row_offset=first, **law)


def row_blocks(rows, width):
    """Yield slices of ``rows`` rows whose float64 copies of ``width`` columns stay small."""
    step = max(1, BLOCK * 16 // width)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def decisions(form, subject, count, ratio, M=1.7, **law):
    """Return the masks of ``count`` decisions, one after the other."""
    return torch.cat(list(blocks(form, subject, count, ratio, M, **law)))


def accepts(form, subject, count, ratio, M=1.7, **law):
    """Return how many of ``count`` decisions accept."""
    masks = blocks(form, subject, count, ratio, M, **law)
    return sum(np.count_nonzero(mask.numpy()) for mask in masks)
