"""What a dense decision is first taken by: logarithms of uniforms that are only nearly right."""

import numpy as np
from numba import njit

from rskernels.kernels.cpu.simd.memory import storer
from rskernels.kernels.cpu.simd.uniforms import (
    ROUGH,
    ROUGH_WORD,
    column_words,
    rough_logs,
    uniforms,
)
from rskernels.kernels.cpu.simd.vectors import LANES, first_lanes

COLUMNS = 1 << 20
_store = storer("f32")


@njit
def draw(row, seed, rough, exact):
    for column in range(0, COLUMNS, LANES):
        words = column_words(row, column, seed)
        _store(rough + column * 4, first_lanes(LANES), rough_logs(words))
        _store(exact + column * 4, first_lanes(LANES), uniforms(words))


def test_they_are_off_by_less_than_is_allowed_for():
    rough, exact = np.full((2, 8, COLUMNS), np.nan, np.float32)
    for row in range(8):
        draw(row, -5, rough[row].ctypes.data, exact[row].ctypes.data)
    is_small = exact < ROUGH_WORD * 2.0**-32
    assert (np.isnan(rough) == is_small).all()
    assert is_small.any()
    off = np.abs(rough - np.log(exact.astype(np.float64)))[~is_small]
    assert 0.5 * ROUGH < off.max() < 0.8 * ROUGH
