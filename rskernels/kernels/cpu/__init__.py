"""The Numba backend: every operation of ``kernels.reference`` for CPU tensors."""

from rskernels.kernels.cpu.launch import (
    bernoulli,
    decide,
    mask,
    philox,
    target_log_prob,
    target_log_prob_backward,
)

__all__ = [
    "bernoulli",
    "decide",
    "mask",
    "philox",
    "target_log_prob",
    "target_log_prob_backward",
]
