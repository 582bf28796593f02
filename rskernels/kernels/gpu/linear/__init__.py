"""The Triton operations on logits that are a product of hidden states and weights, never stored.

``product`` computes a tile of them, ``sums`` reduces it, ``packing`` keeps the rows that are open,
``decide`` decides them, ``gradient`` goes back; ``launch`` and ``backward`` lay tensors out for
them. How large tiles are says ``tiles``.
"""

from rskernels.kernels.gpu.linear.backward import target_log_prob_backward
from rskernels.kernels.gpu.linear.launch import (
    decide,
    decide_with_totals,
    mask,
    target_log_prob,
)

__all__ = ["decide", "decide_with_totals", "mask", "target_log_prob", "target_log_prob_backward"]
