"""The CPU's 2**x of sixteen float32 lanes: as exact as float32, and the same on every processor."""

import numpy as np
import pytest
from numba import njit

from rskernels.kernels.cpu.simd import functions
from rskernels.kernels.cpu.simd.memory import loader, storer
from rskernels.kernels.cpu.simd.vectors import first_lanes, lanes

ENDS = [0.0, -0.0, 1.0, -1.0, -1e-10, 1e-10, -125.0, 126.999, -0.5, -0.49999997]
BEYOND = [-np.inf, -1e30, -200.0, 128.0, 1e30, np.inf, np.nan]

_load, _store = loader("f32"), storer("f32")


def apply(emit, x):
    """Return what LLVM computes of float32 values."""
    exp2 = lanes(lambda value: value)(emit)

    @njit
    def fill(source, target, count):
        for i in range(0, count, 16):
            _store(target + 4 * i, first_lanes(16), exp2(_load(source + 4 * i)))

    x = np.pad(x.astype(np.float32), (0, -len(x) % 16))
    y = np.full_like(x, np.nan)
    fill(x.ctypes.data, y.ctypes.data, len(x))
    return x, y


def values():
    rng = np.random.default_rng(0)
    spread = [rng.uniform(-125, 127, 1 << 16), rng.uniform(-1, 1, 1 << 16), ENDS]
    return np.concatenate(spread)


def ways():
    added = pytest.param(functions._exp2_f32_added, id="added")
    scaled = functions._exp2_f32_scaled
    skip = pytest.mark.skipif(not functions.scales_by_powers(), reason="needs AVX-512 DQ")
    return [added, pytest.param(scaled, id="scaled", marks=skip)]


@pytest.mark.parametrize("emit", ways())
def test_it_is_off_by_what_float32_rounds(emit):
    x, y = apply(emit, values())
    error = y.astype(np.float64) / np.exp2(x.astype(np.float64)) - 1
    assert np.abs(error).max() < 2e-7
    assert np.abs(error.mean()) < 1e-8
    assert (y[x == 0] == 1).all()


@pytest.mark.parametrize("emit", ways())
def test_what_lies_beyond_shows_in_a_sum(emit):
    x, y = apply(emit, np.array(BEYOND))
    below, above = x < -126, ~(x < 128)
    assert (y[below] < 2.0**-124).all()
    assert not (y[above] < 2.0**126).any()


@pytest.mark.skipif(not functions.scales_by_powers(), reason="needs AVX-512 DQ")
def test_both_ways_give_the_same_bits():
    _, added = apply(functions._exp2_f32_added, values())
    _, scaled = apply(functions._exp2_f32_scaled, values())
    assert np.array_equal(added.view(np.int32), scaled.view(np.int32))
