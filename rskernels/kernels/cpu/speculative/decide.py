"""The loop over requests in Numba: draft tokens accepted one by one or as a block, and one drawn.

A request reads the rows up to where it ends, and no further. What it knows of a row is explained in
``rows``, laws and holes in ``weights``. Rows of logits are (address, code, inner, outer and inner
stride, rows a request); a draft's address is 0 where it was certain. A kernel returns how many
draft tokens lie outside of the vocabulary.
"""

import math

import numpy as np
from numba import int64, njit

from rskernels.kernels.cpu.cache import cached, inner
from rskernels.kernels.cpu.dtypes import (
    F32,
    F64,
    I64,
    Kernels,
    load_float,
    load_integer,
    row_address,
    size_of,
    store_float,
    target_at,
)
from rskernels.kernels.cpu.parts import count_parts
from rskernels.kernels.cpu.simd.memory import read_f64, write_i8, write_i64
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.vectors import named
from rskernels.kernels.cpu.speculative.draws import (
    RESIDUAL,
    SPECULATE,
    log_of,
    uniform_64_at,
    uniform_at,
)
from rskernels.kernels.cpu.speculative.rows import (
    LAWLESS,
    PLAIN,
    log_p_of,
    read_row_of,
    weights_law,
)
from rskernels.kernels.cpu.speculative.weights import (
    NO_HOLE,
    NO_LAW,
    draw_entry_of,
    sum_weights_of,
)
from rskernels.kernels.cpu.threads import next_share
from rskernels.law.numbers import LEAST_LOG, LEAST_TEMPERATURE, MOST_TEMPERATURE

MOST_LOG = 700.0  # whose exponential is finite
SUMS = 4
"""Numbers that a request's scratch holds of each part of a row, half of them of the draft's."""


@inner
def row_of(rows, request, place):
    """Return the address of a request's row, 0 where there are none."""
    address, code, length, outer, step, per_request = rows
    if address == 0:
        return 0
    return row_address((address, code, length, outer, step), request * per_request + place)


@inner
def settings_of(settings, request):
    """Return a request's (temperature, top_k, top_p), and whether they are valid."""
    temperature, top_k, top_p = settings
    T, k, share = temperature[1], top_k[1], top_p[1]
    if temperature[0] != 0:
        T = load_float(temperature[0] + request * 8, F64)
    if top_k[0] != 0:
        k = load_integer(top_k[0] + request * 8, I64)
    if top_p[0] != 0:
        share = load_float(top_p[0] + request * 8, F64)
    is_valid = T == 0.0 or LEAST_TEMPERATURE <= T <= MOST_TEMPERATURE
    return (T, k, share), is_valid and k >= 0 and 0.0 < share <= 1.0


@inner
def key_of(draw, request):
    """Return a request's (seed, id)."""
    seed, ids = draw
    address, step, number = seed
    own_seed = load_integer(address + request * step * 8, I64) if address != 0 else number
    address, step, number = ids
    own_id = load_integer(address + request * 8, I64) if address != 0 else number + request * step
    return own_seed, own_id


@inner
def certainty_of(s, factor):
    """Return s / (s + 1 - c); 1 where both are 0: the laws agree, a longer prefix is certain."""
    rest = s + 1.0 - factor
    return s / rest if rest > 0.0 else 1.0


def speculate_rows_of(element):
    """Return the kernel of an element."""
    read_row, log_p = read_row_of(element), log_p_of(element)
    sum_weights, draw_entry = sum_weights_of(element), draw_entry_of(element)
    code = F64 if element.wide == "f64" else F32
    width = element.wide_size

    # What is called in one place only is compiled once, whatever the compiler inlines.
    @inner
    @named(f"draw_token_{element.name}")
    def draw_token(rows, known, factor, hole, V, sums, has_sums, u):
        """Draw by (factor p - q)+, or by p where that is 0 everywhere or nothing was drafted."""
        p, q = known
        if p[4] >= 0:
            return p[4]
        p_law, q_law = weights_law(p, factor), NO_LAW
        if rows[1] != 0:
            q_law = weights_law(q, 1.0)
        total = 0.0
        if rows[1] == 0 and hole < 0 and has_sums:
            p_law = p[0], p[2], 1.0, p[3]
            total = read_f64(sums, count_parts(V, int64(0)) - 1)
        for _ in range(2):
            if not total > 0.0:
                total = sum_weights(rows, (p_law, q_law), hole, V, sums)
            if not total > 0.0:
                rows, hole = (rows[0], 0), NO_HOLE
        return draw_entry(rows, (p_law, q_law), hole, V, sums, u * total)

    @inner
    @named(f"read_rows_{element.name}")
    def read_rows(rows, V, settings, draft_settings, sums):
        """Return what is known of the target's and draft's row, whether both have a law, sums."""
        p, q, has_sums, is_valid = LAWLESS, LAWLESS, False, True
        for side in range(2 if rows[1] != 0 and settings[0] != 0.0 else 1):
            if is_valid:
                own = sums + side * count_parts(V, int64(0)) * 16
                row, given = (rows[0], settings) if side == 0 else (rows[1], draft_settings)
                known, has_own = read_row(row, V, given, own)
                is_valid = not np.isnan(known[1])
                if side == 0:
                    p, has_sums = known, has_own
                else:
                    q = known
        return (p, q), is_valid, has_sums

    @inner
    @named(f"log_ratio_{element.name}")
    def log_ratio(rows, known, token, settings, draft_temperature):
        """Return (log p, log p - log q) of a draft token; -inf where p or q is 0."""
        p, q = known
        of_p = log_p(rows[0], token, p, settings[0])
        of_q = 0.0
        if settings[0] != 0.0 and rows[1] != 0:
            of_q = log_p(rows[1], token, q, draft_temperature)
        is_possible = of_p >= LEAST_LOG and of_q >= LEAST_LOG
        return of_p, of_p - of_q if is_possible else -np.inf

    @inner
    @named(f"block_certainty_{element.name}")
    def block_certainty(rows, known, factor, hole, V, sums):
        """Return the probability by which the tokens before a row are accepted as a block."""
        q_law = NO_LAW
        if rows[1] != 0:
            q_law = weights_law(known[1], 1.0)
        s = sum_weights(rows, (weights_law(known[0], factor), q_law), hole, V, sums)
        return certainty_of(s, factor)

    @inner
    @named(f"take_step_{element.name}")
    def take_step(step, request, V, L, form, settings, draft_settings, key, outputs, sums):
        """Accept draft tokens and draw one; return (how many, the token or -1).

        ``form`` is (whether by a block, the place where it is known to end or -1).
        """
        target, draft, tokens, K = step
        by_block, forced = form
        seed, own_id = key
        log_probs = outputs[2] + request * (K + 1) * width
        accepted, ended, factor, is_valid, is_over = 0, 0, 1.0, True, False
        rows, known, hole, has_sums = (0, 0), (LAWLESS, LAWLESS), NO_HOLE, False
        kept_rows, kept, kept_factor, kept_hole, kept_sums = rows, known, factor, hole, False
        for place in range(L + 1):
            if is_over or not is_valid:
                break
            ended = place
            is_draft = place < L
            rows, hole = (row_of(target, request, place), 0), NO_HOLE
            if is_draft:
                rows = rows[0], row_of(draft, request, place)
            known, is_valid, has_sums = read_rows(rows, V, settings, draft_settings, sums)
            token = target_at(tokens, request * K + place) if is_draft else 0
            if is_draft and rows[1] == 0:
                hole = token
            if by_block and place > 0:
                certain = factor
                if is_valid and is_draft:
                    certain = block_certainty(rows, known, factor, hole, V, sums)
                    has_sums = False
                is_over = uniform_at(own_id, place - 1, SPECULATE, seed) <= certain
            if not by_block or place == 0 or is_over:
                accepted, kept_rows, kept, kept_hole = place, rows, known, hole
                kept_factor, kept_sums = factor if is_draft else 1.0, has_sums
            is_over = False
            if is_valid and is_draft:
                of_p, log_r = log_ratio(rows, known, token, settings, draft_settings[0])
                store_float(log_probs + place * width, code, of_p)
                if by_block:
                    factor = min(1.0, factor * math.exp(min(log_r, MOST_LOG)))
                elif settings[0] == 0.0:
                    is_over = of_p < 0.0
                else:
                    is_over = log_r < log_of(uniform_at(own_id, place, SPECULATE, seed))
                    is_over = is_over or forced >= 0
        if not is_valid and accepted == ended:
            return accepted, -1
        # Of a row that was read before the last, the sums are no more.
        kept_sums = kept_sums and accepted == ended
        place = accepted if forced < 0 else forced
        u = uniform_64_at(own_id, place, RESIDUAL, seed)
        drawn = draw_token(kept_rows, kept, kept_factor, kept_hole, V, sums, kept_sums, u)
        of_p = log_p(kept_rows[0], drawn, kept[0], settings[0])
        store_float(log_probs + accepted * width, code, of_p)
        return accepted, drawn

    @inner
    @named(f"write_request_{element.name}")
    def write_request(request, tokens, K, accepted, drawn, outputs):
        """Write a request's tokens, and what is behind them; its log p are written."""
        for place in range(K + 1):
            at = request * (K + 1) + place
            token = -1
            if place < accepted:
                token = target_at(tokens, request * K + place)
            elif place == accepted:
                token = drawn
            write_i64(outputs[0], at, token)
            if token < 0:
                store_float(outputs[2] + at * width, code, np.nan)
        write_i64(outputs[1], request, accepted)
        write_i8(outputs[3], request, 1 if drawn < 0 else 0)

    @cached
    @njit(nogil=True)
    @named(f"speculate_{element.dtype}")
    def speculate_rows(share, arguments):
        """Decide the requests of the units that it takes; see the module."""
        mode = keep_subnormals(0)
        counter, grab, units, unit_rows, N = share
        target, draft, tokens, lengths, shape, settings, draw, form, outputs, scratch = arguments
        K, V = shape
        is_block, is_processed, places = form
        step = target, draft, tokens, K
        outside = 0
        begin = next_share(counter, -grab, grab)
        while begin < units:
            for request in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
                sums = scratch + request * (SUMS * count_parts(V, int64(0)) * 8)
                own, is_valid = settings_of(settings, request)
                draft_settings = PLAIN if is_processed else own
                L, misplaced = K, 0
                if lengths[0] != 0:
                    L = load_integer(lengths[0] + request * size_of(lengths[1]), lengths[1])
                    if L < 0 or L > K:
                        misplaced, L = 1, 0
                for place in range(L):
                    token = target_at(tokens, request * K + place)
                    if token < 0 or token >= V:
                        misplaced += 1
                accepted, drawn = 0, -1
                outside += misplaced
                if is_valid and misplaced == 0:
                    key = key_of(draw, request)
                    forced = -1
                    if places != 0:
                        forced = load_integer(places + request * 8, I64)
                    how = is_block and own[0] != 0.0, forced
                    accepted, drawn = take_step(
                        step, request, V, L, how, own, draft_settings, key, outputs, sums
                    )
                write_request(request, tokens, K, accepted, drawn, outputs)
            begin = next_share(counter, begin, grab)
        restore(mode)
        return outside

    return speculate_rows


speculate_kernels = Kernels(speculate_rows_of)
