"""A chunk of a row's entries decided roughly, without a logarithm: what is close stays open.

With the weights ``w = 2**((z - reference) * log2(e)/T)`` that the row's total was summed of, an
entry is accepted where ``u * M * w <= p * total``, or where the model is the target
``u * M * q * total <= w``. Both are ``lead * A <= B`` for the leading word of u, which what trails
raises by less than 1: where A or a small part of B could turn it, the entry is open.
"""

import math

import numpy as np
from numba import float32, njit

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.simd.functions import exp2
from rskernels.kernels.cpu.simd.memory import (
    loader,
    part_loader,
    store_mask,
    store_whole_f32,
    store_whole_mask,
    storer,
)
from rskernels.kernels.cpu.simd.uniforms import load_words, words_as_floats
from rskernels.kernels.cpu.simd.vectors import (
    absolute,
    bits_of,
    first_lanes,
    fused,
    named,
    narrow,
    select,
    splat,
    without,
)
from rskernels.law.numbers import LOG2_E

ROUNDED = 2.0**-13  # of B, more than the two ways of rounding a ratio differ by, 2**-14.4
LEAST = 2.0**-70  # of A: a weight that is no smaller has lost nothing to underflow
SPAN = 2.0**60  # what a row's factor may be, or one over it
DEEPEST = 128.0  # log density or log M of a number, up to which float32 rounds it little enough
LOWEST, HIGHEST = -87.0, 88.0  # logarithms of what exp2 gives exactly enough
WORDS = 2.0**32

_load_f32 = loader("f32")


@inner
def rough_factor(log_density, log_M, model_is_target):
    """Return what the total is multiplied by where entries are decided roughly; NaN if they aren't.

    It holds what a row's entries share: M and, unless each has its own, the density.
    """
    if not (abs(log_density) <= DEEPEST and abs(log_M) <= DEEPEST):
        return np.nan
    if model_is_target:
        return math.exp(log_density + log_M) / WORDS
    return math.exp(log_density - log_M) * WORDS


def weigher_of(element):
    """Return ``write_weights(logits, length, reference, scale, weights)`` of an element.

    It writes what ``parts_total_of`` keeps of logits, against another reference.
    """
    load_part, size, scalar = part_loader(element.name), element.size, element.scalar

    @inner
    @named(f"write_weights_{element.name}")
    def write_weights(logits, length, reference, scale, weights):
        base, factor = splat(scalar(reference)), splat(scalar(scale))
        for i in range(0, length, 16):
            z = load_part(logits + i * size, first_lanes(length - i))
            store_whole_f32(weights + i * 4, narrow(exp2((z - base) * factor)))

    return write_weights


def densities_of(element):
    """Return ``write_densities(logs, length, densities)`` for one dtype's results."""
    load, store = part_loader(element.wide), storer(element.wide)
    size, scalar = element.wide_size, element.scalar

    @inner
    @named(f"write_densities_{element.wide}")
    def write_densities(logs, length, densities):
        """Write the densities of logarithms; NaN where ``exp2`` might lose something."""
        low, nan = splat(scalar(-np.inf)), splat(scalar(np.nan))
        lowest, highest = splat(scalar(LOWEST)), splat(scalar(HIGHEST))
        for i in range(0, length, 16):
            inside = first_lanes(length - i)
            x = load(logs + i * size, inside)
            density = exp2(x * splat(scalar(LOG2_E)))
            # -inf is a density of 0.
            density = select((x > lowest) & (x < highest), density, nan)
            store(densities + i * size, inside, select(x == low, splat(scalar(0.0)), density))

    return write_densities


def rough_entries_of(element):
    """Return ``decide_rough_entries`` of one dtype."""
    load, load_part, load_wide, load_wide_part = (
        make(kind) for kind in (element.name, element.wide) for make in (loader, part_loader)
    )
    size, wide_size, low = element.size, element.wide_size, element.scalar(-np.inf)

    @njit(inline="always")
    @named(f"dense_vector_{element.name}")
    def compare(weights, density, words, model_is_target):
        """Return (accepted, sure) of sixteen entries."""
        a, b = weights, density
        if model_is_target:
            a, b = density, weights
        gap = b - words_as_floats(words) * a
        room = fused(b, splat(float32(ROUNDED)), a)
        # An A that underflows, or is none, is open.
        is_normal = a > splat(float32(LEAST))
        return (gap > splat(float32(0.0))) & is_normal, (absolute(gap) > room) & is_normal

    @inner
    @named(f"dense_rough_entries_{element.name}")
    def decide_rough_entries(logits, length, words, weights, density, model_is_target, mask):
        """Decide a chunk's entries roughly; return as bits which vectors have open lanes.

        ``density`` is (address of densities or 0, the row's factor).
        """
        densities, factor = density
        is_open, factor = np.int64(0), splat(float32(factor))
        p = factor
        for i in range(0, length, 16):
            is_whole = i + 16 <= length
            inside = first_lanes(length - i)
            if densities != 0:
                at = densities + i * wide_size
                p = narrow(load_wide(at) if is_whole else load_wide_part(at, inside)) * factor
            accepted, sure = compare(
                _load_f32(weights + i * 4), p, load_words(words + i * 4), model_is_target
            )
            if is_whole:
                store_whole_mask(mask + i, accepted)
            else:
                store_mask(mask + i, inside, accepted)
            if bits_of(sure) != 0xFFFF:
                at = logits + i * size
                z = load(at) if is_whole else load_part(at, inside)
                # A class that the model never gives is rejected; so are lanes outside.
                unsure = without(z > splat(low), sure)
                is_open |= np.int64(bits_of(unsure) != 0) << (i // 16)
        return is_open

    return decide_rough_entries
