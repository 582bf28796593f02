"""The Numba loops over the tokens of sequences until the first that is rejected."""

import numpy as np
from numba import njit

from rskernels.kernels.cpu.cache import cached, inner
from rskernels.kernels.cpu.dtypes import NONE, load_float, size_of
from rskernels.kernels.cpu.law import decide_exactly, natural_log, seed_of
from rskernels.kernels.cpu.sequences.amounts import EVERY, ends_of, store_packed, tokens_at
from rskernels.kernels.cpu.simd.memory import part_loader, read_i64, stack_memory, storer, write_i64
from rskernels.kernels.cpu.simd.subnormals import keep_subnormals, restore
from rskernels.kernels.cpu.simd.uniforms import (
    GROUP,
    GROUP_BYTES,
    column_drawer,
    load_words,
    need_trailing,
    uniforms,
)
from rskernels.kernels.cpu.simd.vectors import LANES, bits_of, count, first_lanes, splat
from rskernels.kernels.cpu.threads import next_share
from rskernels.law.philox import TRAILING
from rskernels.law.streams import Stream

_load_f64, _store_f64 = part_loader("f64"), storer("f64")
_line, _lines = stack_memory(2 * LANES * 8), stack_memory((GROUP + LANES) * 8)
_words = stack_memory(GROUP_BYTES)
_draw, _draw_trailing = (
    column_drawer(stream) for stream in (int(Stream.PREFIX), int(Stream.PREFIX) + TRAILING)
)


@inner
def count_accepted(line, held, column, row, seed, log_M):
    """Return how many of up to ``GROUP`` tokens are accepted before one that is not.

    They are the ones from ``column`` on, which is a multiple of ``GROUP``.
    """
    words = _words()
    _draw(words, row, column, seed)
    has_M = splat(log_M) > splat(-np.inf)
    for at in range(0, held, LANES):
        inside = first_lanes(held - at)
        values = _load_f64(line + at * 8, inside)
        lead = load_words(words + at * 4)
        trail = lead
        if bits_of(need_trailing(lead)) != 0:
            trailing = _words()
            _draw_trailing(trailing, row, column, seed)
            trail = load_words(trailing + at * 4)
        valid = (values < splat(np.inf)) & has_M & inside
        accepted = bits_of(decide_exactly(values - splat(log_M), valid, uniforms(lead, trail)))
        if accepted != EVERY:
            length = at
            while accepted & 1:
                length += 1
                accepted >>= 1
            return length
    return held


@cached
@njit(nogil=True)
def prefix_sequences(share, arguments):
    """Write how many tokens of each sequence are accepted before the first that is not."""
    mode = keep_subnormals(0)
    counter, grab, units, unit_rows, N = share
    tokens, places, M, draw, log_space, lengths = arguments
    seed_address, seed, row_offset, ids = draw
    seed = seed_of(seed_address, seed)
    M_address, M_code, M_step, M_number = M
    line, scratch = _lines(), _line()
    begin = next_share(counter, -grab, grab)
    while begin < units:
        for n in range(begin * unit_rows, min(N, (begin + grab) * unit_rows)):
            value = M_number
            if M_code != NONE:
                value = load_float(M_address + n * M_step * size_of(M_code), M_code)
            log_M = natural_log(value, log_space)
            row = read_i64(ids, n) if ids != 0 else row_offset + n
            start, end = ends_of(places, n)
            column, held, is_over = 0, 0, False
            for at in range(start, end, LANES):
                values, inside = tokens_at(tokens, at, end)
                store_packed(line + held * 8, scratch, inside, values)
                held += count(inside)
                if held >= GROUP:
                    accepted = count_accepted(line, GROUP, column, row, seed, log_M)
                    column += accepted
                    held -= GROUP
                    if accepted < GROUP:
                        is_over = True
                        break
                    _store_f64(
                        line, first_lanes(held), _load_f64(line + GROUP * 8, first_lanes(held))
                    )
            if held > 0 and not is_over:
                column += count_accepted(line, held, column, row, seed, log_M)
            write_i64(lengths, n, column)
        begin = next_share(counter, begin, grab)
    restore(mode)
    return 0
