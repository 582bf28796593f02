"""The Numba operations on logits that are not stored: of hidden states and a weight.

``launch`` opens rows, multiplies them by ``blocks`` of the weight and settles them; ``rows`` and
``fold`` are its loops over rows, by the sums and the law of stored logits. ``gradient`` multiplies
again for the gradient, by what ``slopes`` makes of a block.
"""

from rskernels.kernels.cpu.linear.gradient import target_log_prob_backward
from rskernels.kernels.cpu.linear.launch import decide, decide_with_totals, mask, target_log_prob

__all__ = [
    "decide",
    "decide_with_totals",
    "mask",
    "target_log_prob",
    "target_log_prob_backward",
]
