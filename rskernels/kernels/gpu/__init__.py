"""The Triton backend: every operation of ``kernels.reference`` for CUDA and ROCm tensors.

``launch`` lays tensors out for the kernels of ``decide``, ``dense`` and ``gradient``, ``ratios``
for that of ``bernoulli``, ``sequences`` for those of sequences, ``linear`` for those of logits that
are not stored, ``speculative`` for those over requests; ``softmax`` is their pass over logits,
``early_exit`` says when it may end, ``law`` decides.
"""

from rskernels.kernels.gpu import linear, speculative
from rskernels.kernels.gpu.launch import (
    decide,
    decide_with_totals,
    mask,
    philox,
    target_log_prob,
    target_log_prob_backward,
)
from rskernels.kernels.gpu.ratios import bernoulli, decide_ratios
from rskernels.kernels.gpu.sequences import accept_prefix, decide_sequences

__all__ = [
    "accept_prefix",
    "bernoulli",
    "decide",
    "decide_ratios",
    "decide_sequences",
    "decide_with_totals",
    "linear",
    "mask",
    "philox",
    "speculative",
    "target_log_prob",
    "target_log_prob_backward",
]
