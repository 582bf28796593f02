"""The uniforms of one place of a request, by its id, the place and a stream."""

from numba import float32, float64

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.simd.functions import log_of_normal
from rskernels.kernels.cpu.simd.uniforms import philox_words
from rskernels.kernels.cpu.simd.vectors import first, splat
from rskernels.law.philox import COLUMNS, SMALL_WORD, TRAILING
from rskernels.law.streams import Stream

SPECULATE, RESIDUAL = int(Stream.SPECULATE), int(Stream.RESIDUAL)

_word0, _word1, _word2, _word3 = philox_words


@inner
def word_at(row, column, stream, seed):
    """Return the word of a (row, column) of a stream, as an int64."""
    rest = column // COLUMNS | (stream << 32)
    which = column % COLUMNS
    if which == 0:
        return _word0(row, rest, seed)
    if which == 1:
        return _word1(row, rest, seed)
    if which == 2:
        return _word2(row, rest, seed)
    return _word3(row, rest, seed)


@inner
def uniform_at(row, column, stream, seed):
    """Return the uniform of a (row, column), rounded to float32 as ``word_uniform`` does."""
    lead = word_at(row, column, stream, seed)
    if lead >= SMALL_WORD:
        return float64(float32(lead | 1)) * 2.0**-32
    trail = word_at(row, column, stream + TRAILING, seed)
    return float64(float32((lead << 33) + 2 * trail + 1)) * 2.0**-65


@inner
def uniform_64_at(row, column, stream, seed):
    """Return the uniform of a (row, column), rounded to float64."""
    lead = word_at(row, column, stream, seed)
    trail = word_at(row, column, stream + TRAILING, seed)
    return lead * 2.0**-32 + (trail + 0.5) * 2.0**-64


@inner
def log_of(u):
    """Return the logarithm of a uniform."""
    return first(log_of_normal(splat(u)))
