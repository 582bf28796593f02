"""A chunk of a row's entries decided by logarithms, of u's leading bits or, where close, of u."""

import numpy as np
from numba import float64

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.law import (
    decide_exactly,
    decide_roughly,
    ratios,
)
from rskernels.kernels.cpu.simd.functions import exp2, log
from rskernels.kernels.cpu.simd.memory import (
    add_f64,
    part_loader,
    stack_memory,
    store_mask,
    storer,
)
from rskernels.kernels.cpu.simd.uniforms import (
    GROUP,
    GROUP_BYTES,
    draw_trailing_columns,
    load_words,
    uniforms,
)
from rskernels.kernels.cpu.simd.vectors import (
    bits_of,
    count,
    first_lanes,
    minimum,
    named,
    reduce_add,
    select,
    splat,
)
from rskernels.law.numbers import (
    ACCEPTED,
    EXCESS,
    INVALID,
    LOG2_E,
    MASS,
    VIOLATIONS,
)

# Columns that are decided together: a vector of theirs is a bit of an int64.
CHUNK = 1024

leading_memory, trailing_memory = stack_memory(4 * CHUNK), stack_memory(GROUP_BYTES)
logs_memory, weights_memory = stack_memory(8 * CHUNK), stack_memory(4 * CHUNK)


def logs_of(element):
    """Return ``write_logs`` for one dtype's results."""
    load, store = part_loader(element.wide), storer(element.wide)
    size = element.wide_size

    @inner
    @named(f"write_logs_{element.wide}")
    def write_logs(values, length, logs):
        """Write the logarithms of densities or Ms; return where they are."""
        for i in range(0, length, 16):
            inside = first_lanes(length - i)
            store(logs + i * size, inside, log(load(values + i * size, inside)))
        return logs

    return write_logs


def entries_of(element):
    """Return ``decide_entries`` of one dtype."""
    load, load_wide, store = (
        part_loader(element.name), part_loader(element.wide), storer(element.wide),
    )  # fmt: skip
    size, wide_size, scalar = element.size, element.wide_size, element.scalar
    zero, one, low, nan = (scalar(x) for x in (0.0, 1.0, -np.inf, np.nan))
    most = scalar(np.finfo(np.float64 if element.wide == "f64" else np.float32).max)

    @inner
    @named(f"dense_entries_{element.name}")
    def decide_entries(logits, begin, end, draw, softmax, logs, law, outputs):
        """Decide a chunk's entries from ``begin`` to ``end``, and write what is wanted of them.

        ``logs`` has of densities and of Ms an address of logarithms, and the logarithm that all
        entries share where the address is 0.
        """
        words, trailing, row_id, start, seed = draw
        reference, factor, log_total = softmax
        density, log_density, M, log_M = logs
        mask, log_prob, log_ratio, summary = outputs

        base, factor = splat(scalar(reference)), splat(scalar(factor))
        log_total = splat(scalar(log_total))
        log_d, log_m = splat(scalar(log_density)), splat(scalar(log_M))
        accepted, violations, valid_entries = 0, 0, 0
        excess, mass = splat(zero), splat(zero)
        for i in range(begin, end, 16):
            inside = first_lanes(end - i)
            z = load(logits + i * size, inside)
            log_q = minimum((z - base) * factor - log_total, splat(zero))
            # A finite logit's log q stays finite.
            huge = (log_q < splat(-most)) & (z > splat(low))
            log_q = select(huge, splat(-most), log_q)
            if density != 0:
                log_d = load_wide(density + i * wide_size, inside)
            if M != 0:
                log_m = load_wide(M + i * wide_size, inside)
            valid, log_w, log_r = ratios(log_q, log_d, log_m, law, False)
            lead = load_words(words + i * 4)
            chosen, is_open = decide_roughly(log_r, valid, lead)
            if bits_of(is_open) != 0:
                at = i % GROUP
                draw_trailing_columns(trailing, row_id, start + i - at, seed)
                chosen = decide_exactly(log_r, valid, uniforms(lead, load_words(trailing + at * 4)))
            store_mask(mask + i, inside, chosen)
            if log_prob != 0:
                chosen, valid = chosen & inside, valid & inside
                store(log_prob + i * wide_size, inside, log_q)
                store(log_ratio + i * wide_size, inside, select(valid, log_w, splat(nan)))
                r = exp2(log_r * splat(scalar(LOG2_E)))
                r = select(valid & (log_r > splat(low)), r, splat(zero))
                over = valid & (log_r > splat(zero))
                excess = excess + select(over, r - splat(one), splat(zero))
                mass = mass + r
                accepted += count(chosen)
                violations += count(over)
                valid_entries += count(valid)
        if log_prob != 0:
            add_f64(summary, EXCESS, float64(reduce_add(excess)))
            add_f64(summary, MASS, float64(reduce_add(mass)))
            add_f64(summary, ACCEPTED, accepted)
            add_f64(summary, VIOLATIONS, violations)
            add_f64(summary, INVALID, end - begin - valid_entries)

    return decide_entries
