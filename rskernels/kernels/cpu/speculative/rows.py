"""The law of a row after all settings: what its softmax needs, and log p of an entry.

What is known of a row is (reference, total, scale, least, top): p of a logit z that is at least
``least`` is 2**((z - reference) * scale) / total. The total is NaN where the row has no law, and 0
where it is greedy: then all of p is at the entry ``top``, which else is -1.
"""

from functools import cache

import numpy as np
from numba import float64, int64

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.dtypes import logit_of
from rskernels.kernels.cpu.law import log_prob_of, scale_of
from rskernels.kernels.cpu.parts import count_parts
from rskernels.kernels.cpu.simd.memory import read_f64, write_f64
from rskernels.kernels.cpu.simd.vectors import named
from rskernels.kernels.cpu.softmax import UNREAD, parts_total_of
from rskernels.kernels.cpu.speculative.filters import LOWEST, find_of, keep_of, top_of

LAWLESS = (0.0, np.nan, 0.0, 0.0, -1)
PLAIN = (1.0, 0, 1.0)


@cache
def read_row_of(element):
    """Return ``read_row(row, V, settings, sums)`` of an element.

    It returns what is known of a row, and whether ``sums`` then holds the sum of its terms up to
    the end of each part. The settings are (temperature, top_k, top_p), and valid.
    """
    parts_total, keep = parts_total_of(element), keep_of(element)
    top_entry, find, size = top_of(element), find_of(element), element.size
    lowest = LOWEST[element.wide]

    @inner
    @named(f"sum_parts_{element.name}")
    def sum_parts(row, V, scale, sums):
        """Return (reference, total) of a row, and write the sums up to the end of each part."""
        parts = count_parts(V, int64(0))
        references, state = sums + parts * 8, UNREAD
        for at in range(parts):
            reference, total, bound, _ = parts_total(
                row, int64(size), V, scale, int64(0), int64(0), (0.0, np.inf),
                (at, at + 1, int64(0)), state,
            )  # fmt: skip
            state = (reference, total, bound)
            if np.isnan(reference):
                return np.nan, np.nan
            write_f64(sums, at, total)
            write_f64(references, at, reference)
        reference, total, _ = state
        if not reference > -np.inf:
            return np.nan, np.nan
        for at in range(parts):
            before = read_f64(references, at)
            if before < reference or before > reference:
                rescaled = read_f64(sums, at) * 2.0 ** ((before - reference) * scale)
                write_f64(sums, at, rescaled)
        return reference, total

    @inner
    @named(f"read_row_{element.name}")
    def read_row(row, V, settings, sums):
        temperature, k, share = settings
        if temperature == 0.0:
            top, has_law = top_entry(row, V)
            if not has_law:
                return LAWLESS, False
            return (top, 0.0, 0.0, top, find(row, V, top)), False
        scale = scale_of(temperature)
        reference, total = sum_parts(row, V, scale, sums)
        if np.isnan(total):
            return LAWLESS, False
        if 0 < k < V or share < 1.0:
            least, total = keep(row, V, reference, scale, k, share)
            return (reference, total, scale, least, -1), False
        return (reference, total, scale, lowest, -1), True

    return read_row


@cache
def log_p_of(element):
    """Return ``log_p(row, entry, known, temperature)`` of an element."""
    logit_at = logit_of(element)

    @inner
    @named(f"log_p_{element.name}")
    def log_p(row, entry, known, temperature):
        reference, total, _, least, top = known
        if top >= 0:
            return 0.0 if entry == top else -np.inf
        z = logit_at(row, entry, int64(1))
        if not z >= least:
            return -np.inf
        return float64(log_prob_of(z, reference, total, temperature))

    return log_p


@inner
def weights_law(known, factor):
    """Return a law as ``weights`` takes it, all of it multiplied."""
    reference, total, scale, least, _ = known
    return reference, scale, factor / total, least
