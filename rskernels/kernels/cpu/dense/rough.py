"""A chunk of a row's entries decided roughly, without a logarithm: what is close stays open.

The row's total was summed of the weights ``w = 2**((z - reference) * log2(e)/T)``. With them an
entry is accepted where ``u * M * w <= p * total`` or, where the model is the target,
``u * M * q * total <= w``. Both have the form ``lead * A <= B``, with the leading 32 bits of u as
an integer. The bits that follow raise ``lead`` by less than 1, and rounding changes B by a small
part: where either could turn the decision, the entry stays open. Of an A that may have lost bits to
underflow only an upper bound is known, ``LEAST``. That is enough where this bound is accepted.
"""

import math

import numpy as np
from numba import float32

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
from rskernels.kernels.cpu.simd.uniforms import (
    BLOCK,
    GROUP,
    draw_block,
    load_words,
    words_as_floats,
)
from rskernels.kernels.cpu.simd.vectors import (
    absolute,
    bits_of,
    first_lanes,
    fused,
    maximum,
    named,
    narrow,
    select,
    splat,
    without,
)
from rskernels.law.numbers import LOG2_E

# Of B, more than the two ways of rounding a ratio differ by, 2**-14.4. Float32 rounds a log density
# and a log M of up to DEEPEST by 2**-18 each and their ratio by 2**-17; log2(e)/T, 1/T, what they
# multiply, down to LEAST, and the logarithms of the total, the density and u by six times 2**-18.
ROUNDED = 2.0**-13
LEAST = 2.0**-70  # of A: from here on a weight has lost nothing to underflow
VANISHED = 2.0**-120  # of A: up to here the logit may have been -inf, or the density 0
# The most that a row's factor, or one over it, may be: a float64 density too small for a float32 is
# off by up to 2**-150, which the factor must keep small beside LEAST.
SPANS = {"f32": 2.0**100, "f64": 2.0**60}
DEEPEST = 128.0  # the largest log density or log M that float32 rounds little enough
LOWEST, HIGHEST = -87.0, 88.0  # logarithms between which exp2 is exact enough
WORDS = 2.0**32

load_f32 = loader("f32")


@inner
def rough_factor(log_density, log_M, model_is_target):
    """Return what the total is multiplied by where entries are decided roughly; NaN if they aren't.

    It is made of what a row's entries share: M and, unless each has its own, the density.
    """
    if not (abs(log_density) <= DEEPEST and abs(log_M) <= DEEPEST):
        return np.nan
    if model_is_target:
        return math.exp(log_density + log_M) / WORDS
    return math.exp(log_density - log_M) * WORDS


def weigher_of(element):
    """Return ``write_weights(logits, length, reference, scale, weights)`` of an element.

    It writes weights as ``parts_total_of`` keeps them, but relative to the reference given.
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
    nothing, one = element.scalar(0.0), element.scalar(1.0)

    @inner
    @named(f"dense_vector_{element.name}")
    def compare(words, a, b):
        """Return (accepted, decided, sure) of sixteen entries of A and -B.

        An A below ``LEAST`` is taken for that: if that is accepted a smaller one is as well, since
        rounding keeps the order of logarithms. ``decided`` supposes that A is above 0, if only
        before underflow; where that is known the entry is ``sure``.
        """
        least = splat(float32(LEAST))
        # A NaN stays one.
        most = maximum(least, a)
        gap = fused(words_as_floats(load_words(words)), most, b)
        accepted = gap < splat(float32(0.0))
        decided = absolute(gap) > fused(b, splat(float32(-ROUNDED)), most)
        decided = decided & (accepted | (a > least))
        return accepted, decided, decided & (a > splat(float32(VANISHED)))

    @inner
    @named(f"dense_open_{element.name}")
    def settle(z, p, compared, at):
        """Return which of sixteen entries are accepted, and as bits the vectors that are open.

        The entries lie in one or two vectors of the chunk, whose bits are 0 unless an entry is
        open. A logit of -inf is rejected, and so is a density of 0.
        """
        accepted, decided, _ = compared
        alive = without(z > splat(low), p <= splat(nothing))
        is_open = np.int64(bits_of(without(alive, decided)) != 0)
        return accepted & alive, is_open << (at // 16) | is_open << ((at + 15) // 16)

    @inner
    @named(f"dense_settle_{element.name}")
    def settle_whole(logits, density, compared, place, at):
        """Settle sixteen entries, write what is accepted and return the bits."""
        p = load_wide(density) if density != 0 else splat(one)
        accepted, is_open = settle(load(logits), p, compared, at)
        store_whole_mask(place, accepted)
        return is_open

    @inner
    @named(f"dense_rough_entries_{element.name}")
    def decide_rough_entries(logits, length, draw, weights, density, model_is_target, mask):
        """Draw and decide a chunk's entries roughly; return as bits which vectors have open lanes.

        ``draw`` is (address of words, whether they are drawn, row, first column, seed), and
        ``density`` (address of densities or 0, the row's factor). The last group of entries begins
        early enough to be whole, so that some entries are decided twice, alike.
        """
        words, is_drawn, row_id, start, seed = draw
        densities, factor = density
        is_open, zero = np.int64(0), splat(float32(0.0))
        factor = splat(float32(factor if model_is_target else -factor))
        # The words of rows that are no longer than a vector are drawn already.
        for begin in range(0, 0 if is_drawn else length, GROUP):
            if begin % BLOCK == 0:
                draw_block(words + begin * 4, row_id, start + begin, seed)
            if length < GROUP:
                break
            at = min(begin, length - GROUP)
            lead, weight, place = words + at * 4, weights + at * 4, mask + at
            a0, a1, a2, a3 = (
                load_f32(weight), load_f32(weight + 64),
                load_f32(weight + 128), load_f32(weight + 192),
            )  # fmt: skip
            b0, b1, b2, b3 = factor, factor, factor, factor
            if densities != 0:
                p = densities + at * wide_size
                b0 = narrow(load_wide(p)) * factor
                b1 = narrow(load_wide(p + 16 * wide_size)) * factor
                b2 = narrow(load_wide(p + 32 * wide_size)) * factor
                b3 = narrow(load_wide(p + 48 * wide_size)) * factor
            if model_is_target:
                a0, b0, a1, b1 = b0, zero - a0, b1, zero - a1
                a2, b2, a3, b3 = b2, zero - a2, b3, zero - a3
            c0, c1 = compare(lead, a0, b0), compare(lead + 64, a1, b1)
            c2, c3 = compare(lead + 128, a2, b2), compare(lead + 192, a3, b3)
            if bits_of((c0[2] & c1[2]) & (c2[2] & c3[2])) == 0xFFFF:
                store_whole_mask(place, c0[0])
                store_whole_mask(place + 16, c1[0])
                store_whole_mask(place + 32, c2[0])
                store_whole_mask(place + 48, c3[0])
            else:
                z, p, step = logits + at * size, 0, 0
                if densities != 0:
                    p, step = densities + at * wide_size, 16 * wide_size
                is_open |= settle_whole(z, p, c0, place, at)
                is_open |= settle_whole(z + 16 * size, p + step, c1, place + 16, at + 16)
                is_open |= settle_whole(z + 32 * size, p + 2 * step, c2, place + 32, at + 32)
                is_open |= settle_whole(z + 48 * size, p + 3 * step, c3, place + 48, at + 48)
        if length < GROUP:
            for begin in range(0, length, 16):
                at = max(min(begin, length - 16), 0)
                inside, a, b = first_lanes(length - at), load_f32(weights + at * 4), factor
                p = splat(one)
                if densities != 0:
                    p = load_wide_part(densities + at * wide_size, inside)
                    b = narrow(p) * factor
                if model_is_target:
                    a, b = b, zero - a
                z, compared = load_part(logits + at * size, inside), compare(words + at * 4, a, b)
                accepted, bits = settle(z, p, compared, at)
                is_open |= bits
                if length < 16:
                    store_mask(mask + at, inside, accepted)
                else:
                    store_whole_mask(mask + at, accepted)
        return is_open

    return decide_rough_entries
