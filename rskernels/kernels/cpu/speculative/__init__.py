"""Speculative steps in Numba: ``decide`` is their loop over requests, ``launch`` calls it.

``rows`` knows the law of a row after all settings, ``filters`` what top-k and top-p keep of it,
``weights`` sums a residual and draws from it, ``draws`` has the uniforms; ``linear`` makes rows of
logits that are not stored.
"""

from rskernels.kernels.cpu.speculative.launch import run_steps, speculate
from rskernels.kernels.cpu.speculative.linear import speculate_product

__all__ = ["run_steps", "speculate", "speculate_product"]
