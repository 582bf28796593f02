"""Speculative steps in Triton: ``launch`` calls the kernels of ``decide``.

``rows`` finds what top-k and top-p keep of a row, ``weights`` sums a residual by parts, ``draws``
has the uniforms; ``linear`` makes rows of logits that are not stored.
"""

from rskernels.kernels.gpu.speculative.launch import run_steps, speculate
from rskernels.kernels.gpu.speculative.linear import speculate_product

__all__ = ["run_steps", "speculate", "speculate_product"]
