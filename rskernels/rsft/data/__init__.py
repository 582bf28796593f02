"""Rows of a pool: how they are split, read from `files`, balanced, drawn, or made to drift.

`samples` are what all of it is of, `splits` the test set and the long tail, `domains` the densities
of two domains, `draw` rows drawn by such a ratio, `resample` the baselines that repeat rows.
"""

from rskernels.rsft.data.domains import log_domain_densities
from rskernels.rsft.data.draw import draw_rows
from rskernels.rsft.data.resample import RESAMPLERS
from rskernels.rsft.data.samples import Data, Samples
from rskernels.rsft.data.splits import log_class_balance

__all__ = [
    "RESAMPLERS",
    "Data",
    "Samples",
    "draw_rows",
    "log_class_balance",
    "log_domain_densities",
]
