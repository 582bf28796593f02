"""Speculative steps in Triton: ``launch`` calls the kernels of ``decide``.

``rows`` finds what top-k and top-p keep of a row, ``weights`` sums a residual by parts.
"""

from rskernels.kernels.gpu.speculative.launch import run_steps, speculate

__all__ = ["run_steps", "speculate"]
