"""Torch's side of the operations: operators, autograd, transforms, and the way past the dispatcher.

``schemas`` declares the operators; ``devices``, ``fakes``, ``autograd``, ``transforms`` and
``dynamic`` implement them; ``vocabulary`` puts together what ranks know; ``operations`` and
``speculative`` have what ``rskernels.ops`` calls. Nothing outside of this folder defines an
operator or asks torch's private queries.
"""

# Whoever calls an operator needs all that registers for it.
from rskernels._torch import autograd, devices, fakes, transforms, vocabulary
from rskernels._torch.operations import (
    ACCEPT_PREFIX,
    BERNOULLI,
    DECIDE,
    DECIDE_RATIOS,
    DECIDE_SEQUENCES,
    MASK,
    Call,
    DecisionOperation,
    Operation,
    call_log_prob,
    decide,
    product_fields,
    refuse_tangents,
)
from rskernels._torch.speculative import SPECULATE

__all__ = [
    "ACCEPT_PREFIX",
    "BERNOULLI",
    "DECIDE",
    "DECIDE_RATIOS",
    "DECIDE_SEQUENCES",
    "MASK",
    "SPECULATE",
    "Call",
    "DecisionOperation",
    "Operation",
    "autograd",
    "call_log_prob",
    "decide",
    "devices",
    "fakes",
    "product_fields",
    "refuse_tangents",
    "transforms",
    "vocabulary",
]
