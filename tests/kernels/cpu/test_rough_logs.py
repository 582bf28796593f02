"""Uniforms in the CPU's vectors: rounded once, and the rough logarithms that decide first."""

import numpy as np
import torch
from numba import njit

from rskernels.kernels.cpu.simd.memory import storer
from rskernels.kernels.cpu.simd.uniforms import (
    GROUP,
    ROUGH,
    ROUGH_WORD,
    draw_columns,
    draw_trailing_columns,
    load_words,
    rough_log2s,
    uniforms,
)
from rskernels.kernels.cpu.simd.vectors import LANES, first_lanes
from rskernels.law.philox import word_uniform

COLUMNS = 1 << 20
_store = storer("f32")


@njit
def draw(row, seed, words, trailing, rough, exact):
    for column in range(0, COLUMNS, GROUP):
        draw_columns(words, row, column, seed)
        draw_trailing_columns(trailing, row, column, seed)
        for i in range(0, GROUP, LANES):
            lead, trail = load_words(words + i * 4), load_words(trailing + i * 4)
            _store(rough + (column + i) * 4, first_lanes(LANES), rough_log2s(lead))
            _store(exact + (column + i) * 4, first_lanes(LANES), uniforms(lead, trail))


@njit
def round_words(lead, trail, count, u):
    for at in range(0, 4 * count, 4 * LANES):
        _store(u + at, first_lanes(LANES), uniforms(load_words(lead + at), load_words(trail + at)))


def test_uniforms_of_words_are_rounded_once():
    edges = [0, 1, 2, 3, 2**24 + 1, 2**25 + 3, 2**26 - 1, 2**26, 2**26 + 1, 2**32 - 1]
    edges += [2**bits + 2 ** max(0, bits - 24) for bits in range(32)]
    pairs = [(lead, trail) for lead in edges for trail in (*edges, 2**31, 2**7, 2**9)]
    pairs += [(0, 0)] * (-len(pairs) % LANES)
    words = np.array(pairs, np.uint32).T.copy()
    u = np.full(len(pairs), np.nan, np.float32)
    round_words(words[0].ctypes.data, words[1].ctypes.data, len(pairs), u.ctypes.data)
    want = word_uniform(*torch.from_numpy(words.astype(np.int64)))
    assert (u == want.numpy()).all()
    assert u[-1] == u.min() == 2.0**-65


def test_rough_logs_are_off_by_less_than_is_allowed_for():
    rough, exact = np.full((2, 8, COLUMNS), np.nan, np.float32)
    words, trailing = np.zeros((2, GROUP), np.uint32)
    for row in range(8):
        draw(
            row, -5, words.ctypes.data, trailing.ctypes.data,
            rough[row].ctypes.data, exact[row].ctypes.data,
        )  # fmt: skip
    is_small = exact < ROUGH_WORD * 2.0**-32
    assert (np.isnan(rough) == is_small).all()
    assert is_small.any()
    off = np.abs(rough - np.log2(exact.astype(np.float64)))[~is_small]
    assert 0.4 * ROUGH < off.max() < 0.8 * ROUGH
