"""Selection of data sets by reward: which answers to keep, so that what is kept has a known law.

``decide`` is the call, ``tilt``; ``forms`` the weights and constants M of its forms; ``rows`` what
is given and ``pilot`` where rewards stand among others; ``selection`` what is returned and ``sums``
the numbers in it; ``rivals`` the rules that are in use elsewhere.
"""

from rskernels.select.decide import tilt
from rskernels.select.rivals import rso, soft_best_of_n, threshold, top_k, weights
from rskernels.select.selection import TiltedSelection

__all__ = [
    "TiltedSelection",
    "rso",
    "soft_best_of_n",
    "threshold",
    "tilt",
    "top_k",
    "weights",
]
