"""The uniforms of a request's places in Triton, by its id, the place and a stream."""

import triton
import triton.language as tl

from rskernels.kernels.gpu.law import COLUMNS, TRAILING, philox_words, row_counter, word_uniform
from rskernels.law.streams import Stream

SPECULATE, RESIDUAL = tl.constexpr(int(Stream.SPECULATE)), tl.constexpr(int(Stream.RESIDUAL))


@triton.jit
def place_words(row_id, places, stream, seed):
    """Return the words of places of a row; stream is an int64."""
    low, high, use = row_counter(row_id, stream)
    places = places.to(tl.int64)
    quarters = (places // COLUMNS).to(tl.uint32)
    w0, w1, w2, w3 = philox_words(low, high, quarters, use, seed)
    which = places % COLUMNS
    return tl.where(which == 0, w0, tl.where(which == 1, w1, tl.where(which == 2, w2, w3)))


@triton.jit
def place_uniforms(row_id, places, seed):
    """Return the uniforms by which draft tokens are accepted, float32."""
    stream = tl.full([], SPECULATE, tl.int64)
    lead = place_words(row_id, places, stream, seed)
    return word_uniform(lead, place_words(row_id, places, stream + TRAILING, seed))


@triton.jit
def residual_uniform(row_id, place, seed):
    """Return the uniform by which a place's token is drawn, float64."""
    stream = tl.full([], RESIDUAL, tl.int64)
    lead = place_words(row_id, place, stream, seed).to(tl.float64)
    trail = place_words(row_id, place, stream + TRAILING, seed).to(tl.float64)
    return lead * (2.0**-32) + (trail + 0.5) * (2.0**-64)


@triton.jit
def key_of(
    seed_ptr, seed, seed_step, ids_ptr, row_offset, id_step, request,
    HAS_SEED: tl.constexpr, HAS_IDS: tl.constexpr,
):  # fmt: skip
    """Return a request's (seed, id)."""
    own_seed, own_id = seed.to(tl.int64), row_offset.to(tl.int64) + request * id_step
    if HAS_SEED:
        own_seed = tl.load(seed_ptr + request.to(tl.int64) * seed_step)
    if HAS_IDS:
        own_id = tl.load(ids_ptr + request)
    return own_seed, own_id
