"""The Triton backend: every operation of ``kernels.reference`` for CUDA and ROCm tensors."""

from rskernels.kernels.gpu.launch import (
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
