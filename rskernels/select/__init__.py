"""Selection of data sets by reward: which answers to keep, so that what is kept has a known law.

``tilt`` is the call, ``forms`` the weights and constants M of its forms, ``pilot`` the ranks of
rewards among others, ``selection`` what is returned and ``sums`` the numbers in it; ``rivals``
are the rules that are in use elsewhere.
"""

from rskernels.select.rivals import rso, soft_best_of_n, threshold, top_k, weights
from rskernels.select.selection import TiltedSelection
from rskernels.select.tilt import tilt

__all__ = [
    "TiltedSelection",
    "rso",
    "soft_best_of_n",
    "threshold",
    "tilt",
    "top_k",
    "weights",
]
