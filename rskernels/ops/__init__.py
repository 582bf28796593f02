"""The public operations: they check what they are given and call the torch operators.

``decide`` has the masks and decisions, ``arguments`` what they accept, ``columns`` is
``ColumnOrder``. Nothing is computed here.
"""

from rskernels.ops.columns import ColumnOrder
from rskernels.ops.decide import (
    Acceptance,
    accept,
    accept_mask,
    bernoulli_mask,
    target_log_prob,
    verify,
    verify_mask,
)

__all__ = [
    "Acceptance",
    "ColumnOrder",
    "accept",
    "accept_mask",
    "bernoulli_mask",
    "target_log_prob",
    "verify",
    "verify_mask",
]
