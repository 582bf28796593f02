"""The Triton backend: every operation of ``kernels.reference`` for CUDA and ROCm tensors.

``launch`` lays tensors out for the kernels of ``decide``, ``dense``, ``gradient`` and
``bernoulli``; ``softmax`` is their pass over logits, ``early_exit`` says when it may end, ``law``
decides.
"""

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
