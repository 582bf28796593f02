"""The Numba backend: every operation of ``kernels.reference`` for CPU tensors.

``launch`` lays tensors out and runs the loops over rows of ``decide``, ``dense`` and ``gradient``,
``ratios`` those of ``bernoulli``, ``sequences`` those of sequences, ``linear`` those of logits that
are not stored, ``speculative`` the one over requests; ``softmax`` is their pass over logits,
``early_exit`` says when it may end, ``law`` decides. ``threads`` share out rows, ``turns`` takes
them in turns, ``parts`` shares a row's bounds by quarters; ``simd`` has the vectors, ``dtypes`` the
loads.
"""

from rskernels.kernels.cpu import linear, speculative
from rskernels.kernels.cpu.launch import (
    decide,
    decide_with_totals,
    mask,
    philox,
    plain_mask,
    target_log_prob,
    target_log_prob_backward,
)
from rskernels.kernels.cpu.ratios import bernoulli, decide_ratios
from rskernels.kernels.cpu.sequences import accept_prefix, decide_sequences

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
    "plain_mask",
    "speculative",
    "target_log_prob",
    "target_log_prob_backward",
]
