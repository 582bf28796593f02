"""Selection of data sets by reward: which answers to keep, so that what is kept has a known law.

``decide`` has the call, ``tilt``, and ``forms`` the weights and constants M of its forms. ``rows``
checks what is given; ``pilot`` ranks rewards among others. ``selection`` is what is returned,
``sums`` the numbers in it. ``rivals`` has the rules that are in use elsewhere.
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
