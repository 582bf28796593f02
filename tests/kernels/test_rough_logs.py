"""What a decision is first taken by: logarithms of uniforms that are only nearly right."""

import numpy as np
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


def test_they_are_off_by_less_than_is_allowed_for():
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
