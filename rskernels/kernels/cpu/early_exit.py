"""When the rest of a row need not be read, in Numba: its total can only grow.

``decide_unread`` decides what no total can change; ``headrooms`` says how far the total may rise
above the target's term before the decision is certain; ``bound_of`` is the total at which it is.
``softmax`` leaves a row once its total passes that bound, ``turns`` once its part is over.
"""

import numpy as np
from numba import njit

from rskernels.kernels.cpu.cache import inner
from rskernels.kernels.cpu.law import decide
from rskernels.kernels.cpu.simd.vectors import absolute, splat, without
from rskernels.law.numbers import FLOAT32_ROUNDING, FLOAT64_ROUNDING, LOG2_E, MARGIN


@inner
def headrooms(log_density, log_M, log_u, model_is_target):
    """Return the log2 of total/exp(z/T) from which the target's decision is certain.

    Beyond it a model that is the target is rejected, and one that is the proposal accepted.
    """
    log_r = log_M + log_u
    room = splat(0.0) - (log_r + log_density) if model_is_target else log_r - log_density
    rounded = absolute(log_r) + absolute(log_M)
    margin = splat(MARGIN) + splat(FLOAT32_ROUNDING) * rounded
    margin = margin + splat(FLOAT64_ROUNDING) * absolute(log_density)
    return (room + margin) * splat(LOG2_E)


@njit(inline="always")
def decide_unread(z, log_density, log_M, log_u, model_is_target, is_lazy, is_float32):
    """Return (open, accepted, headroom) of rows of which only the targets' logits are known.

    Rows that are not open are decided. The headroom of the others, infinite unless ``is_lazy``, is
    how far the total may rise above the target's term before the decision is certain, in octaves.
    """
    top = splat(np.inf)
    possible = (absolute(z) < top) & (absolute(log_density) < top) & (absolute(log_M) < top)
    if is_lazy:
        return _decide_early(possible, log_density, log_M, log_u, model_is_target, is_float32)
    return possible, without(possible, possible), top


@inner
def _decide_early(possible, log_density, log_M, log_u, model_is_target, is_float32):
    # With log q = 0 a target is most, and a proposal least, likely accepted.
    accepted, _, _, _ = decide(splat(0.0), log_density, log_M, log_u, model_is_target, is_float32)
    headroom = headrooms(log_density, log_M, log_u, model_is_target)
    if model_is_target:
        return possible & accepted, without(possible, possible), headroom
    return without(possible, accepted), possible & accepted, headroom


@inner
def bound_of(z, reference, scale, headroom):
    """Return ``2**((z - reference) * scale + headroom)``, rounded up."""
    octaves = (z - reference) * scale
    return 2.0 ** (octaves + abs(octaves) * FLOAT64_ROUNDING + headroom)
