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
from rskernels.law.numbers import LEAST_TEMPERATURE, MOST_TEMPERATURE

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


def speculate_rows_of(element):
    """Return the kernel of an element."""
    read_row, log_p = read_row_of(element), log_p_of(element)
    sum_weights, draw_entry = sum_weights_of(element), draw_entry_of(element)
    code = F64 if element.wide == "f64" else F32
    width = element.wide_size

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
        if rows[1] == 0 and hole < 0 and has_sums:
            p_law = p[0], p[2], 1.0, p[3]
            total = read_f64(sums, count_parts(V, int64(0)) - 1)
        else:
            total = sum_weights(rows, (p_law, q_law), hole, V, sums)
            if not total > 0.0:
                rows, hole = (rows[0], 0), NO_HOLE
                total = sum_weights(rows, (p_law, q_law), hole, V, sums)
        return draw_entry(rows, (p_law, q_law), hole, V, sums, u * total)

    @inner
    @named(f"read_rows_{element.name}")
    def read_rows(rows, has_draft, V, settings, draft_settings, sums):
        """Return what is known of the target's and draft's row, whether both have a law, sums."""
        p, has_sums = read_row(rows[0], V, settings, sums)
        q, is_valid = LAWLESS, not np.isnan(p[1])
        if is_valid and has_draft and settings[0] != 0.0:
            q, _ = read_row(rows[1], V, draft_settings, sums + count_parts(V, int64(0)) * 16)
            is_valid = not np.isnan(q[1])
        return (p, q), is_valid, has_sums

    @inner
    @named(f"log_ratio_{element.name}")
    def log_ratio(rows, known, token, settings, draft_temperature):
        """Return (log p, log p - log q) of a draft token; of one that has no q it is rejected."""
        p, q = known
        of_p = log_p(rows[0], token, p, settings[0])
        of_q = 0.0
        if settings[0] != 0.0 and rows[1] != 0:
            of_q = log_p(rows[1], token, q, draft_temperature)
        return of_p, of_p - of_q if of_q > -np.inf else -np.inf

    @inner
    @named(f"by_token_{element.name}")
    def by_token(step, request, V, L, settings, draft_settings, key, outputs, sums):
        """Accept until a token is rejected; return (accepted, the token after or -1)."""
        target, draft, tokens, K = step
        seed, own_id = key
        log_probs = outputs[2] + request * (K + 1) * width
        for place in range(L + 1):
            rows = row_of(target, request, place), 0
            if place < L:
                rows = rows[0], row_of(draft, request, place)
            known, is_valid, has_sums = read_rows(
                rows, rows[1] != 0, V, settings, draft_settings, sums
            )
            if not is_valid:
                return place, -1
            hole = NO_HOLE
            if place < L:
                token = target_at(tokens, request * K + place)
                of_p, log_r = log_ratio(rows, known, token, settings, draft_settings[0])
                if settings[0] == 0.0:
                    is_accepted = of_p == 0.0
                else:
                    is_accepted = log_r >= log_of(uniform_at(own_id, place, SPECULATE, seed))
                if is_accepted:
                    store_float(log_probs + place * width, code, of_p)
                    continue
                if rows[1] == 0:
                    hole = token
            u = uniform_64_at(own_id, place, RESIDUAL, seed)
            drawn = draw_token(rows, known, 1.0, hole, V, sums, has_sums, u)
            of_p = log_p(rows[0], drawn, known[0], settings[0])
            store_float(log_probs + place * width, code, of_p)
            return place, drawn
        return 0, -1

    @inner
    @named(f"by_block_{element.name}")
    def by_block(step, request, V, L, settings, draft_settings, key, outputs, sums):
        """Accept the longest prefix that is accepted; return (accepted, the token after or -1)."""
        target, draft, tokens, K = step
        seed, own_id = key
        log_probs = outputs[2] + request * (K + 1) * width
        rows = row_of(target, request, 0), 0
        if L > 0:
            rows = rows[0], row_of(draft, request, 0)
        known, is_valid, has_sums = read_rows(rows, rows[1] != 0, V, settings, draft_settings, sums)
        if not is_valid:
            return 0, -1
        accepted, factor = 0, 1.0
        kept_rows, kept, kept_factor, keeps_sums, end = rows, known, 1.0, has_sums, L
        has_end = True
        for place in range(1, L + 1):
            token = target_at(tokens, request * K + place - 1)
            of_p, log_r = log_ratio(rows, known, token, settings, draft_settings[0])
            store_float(log_probs + (place - 1) * width, code, of_p)
            factor = min(1.0, factor * math.exp(min(log_r, 0.0) if factor == 1.0 else log_r))
            rows = row_of(target, request, place), 0
            if place < L:
                rows = rows[0], row_of(draft, request, place)
            known, is_valid, has_sums = read_rows(
                rows, rows[1] != 0, V, settings, draft_settings, sums
            )
            certain = factor
            if not is_valid:
                end, has_end = place, False
            elif place < L:
                hole, q_law = NO_HOLE, NO_LAW
                if rows[1] == 0:
                    hole = target_at(tokens, request * K + place)
                else:
                    q_law = weights_law(known[1], 1.0)
                laws = weights_law(known[0], factor), q_law
                s = sum_weights(rows, laws, hole, V, sums)
                has_sums = False
                certain = s / (s + 1.0 - factor) if s + 1.0 - factor > 0.0 else 1.0
            if uniform_at(own_id, place - 1, SPECULATE, seed) <= certain:
                accepted = place
                kept_rows, kept, kept_factor, keeps_sums = rows, known, factor, has_sums
            if not is_valid:
                break
        if accepted == end and not has_end:
            return accepted, -1
        hole = NO_HOLE
        if accepted < end:
            keeps_sums = False
            if kept_rows[1] == 0:
                hole = target_at(tokens, request * K + accepted)
        else:
            kept_factor = 1.0
        u = uniform_64_at(own_id, accepted, RESIDUAL, seed)
        drawn = draw_token(kept_rows, kept, kept_factor, hole, V, sums, keeps_sums, u)
        of_p = log_p(kept_rows[0], drawn, kept[0], settings[0])
        store_float(log_probs + accepted * width, code, of_p)
        return accepted, drawn

    @inner
    @named(f"drawn_at_{element.name}")
    def drawn_at(step, request, V, L, settings, draft_settings, key, outputs, sums, place):
        """Draw where a draft is known to be rejected (L is 1) or all were accepted (0)."""
        target, draft, tokens, K = step
        rows = row_of(target, request, 0), 0
        hole = NO_HOLE
        if L > 0:
            rows = rows[0], row_of(draft, request, 0)
            if rows[1] == 0:
                hole = target_at(tokens, request * K)
        known, is_valid, has_sums = read_rows(rows, rows[1] != 0, V, settings, draft_settings, sums)
        if not is_valid:
            return 0, -1
        u = uniform_64_at(key[1], place, RESIDUAL, key[0])
        drawn = draw_token(rows, known, 1.0, hole, V, sums, has_sums, u)
        of_p = log_p(rows[0], drawn, known[0], settings[0])
        store_float(outputs[2] + request * (K + 1) * width, code, of_p)
        return 0, drawn

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
                    if places != 0:
                        place = load_integer(places + request * 8, I64)
                        accepted, drawn = drawn_at(
                            step, request, V, L, own, draft_settings, key, outputs, sums, place
                        )
                    elif is_block and own[0] != 0.0:
                        accepted, drawn = by_block(
                            step, request, V, L, own, draft_settings, key, outputs, sums
                        )
                    else:
                        accepted, drawn = by_token(
                            step, request, V, L, own, draft_settings, key, outputs, sums
                        )
                write_request(request, tokens, K, accepted, drawn, outputs)
            begin = next_share(counter, begin, grab)
        restore(mode)
        return outside

    return speculate_rows


speculate_kernels = Kernels(speculate_rows_of)
