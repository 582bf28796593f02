"""The public operations: they check their arguments and call the torch operators.

``decide`` has the masks of logits, ``acceptance`` what they return beside, ``columns`` the order
they read in, ``linear`` logits that are not stored; ``ratios`` decides about ratios, ``log_prob``
is the differentiable log-probability, ``mean`` averages a loss over what was accepted;
``sequences`` decides about sequences, which ``batch`` checks; ``speculative`` takes a step of
speculative sampling; ``arguments`` says what they accept, ``bind`` puts it in order. Nothing is
computed here but that mean.
"""

from rskernels.ops.acceptance import Acceptance
from rskernels.ops.columns import ColumnOrder
from rskernels.ops.decide import accept, accept_mask, verify, verify_mask
from rskernels.ops.linear import LinearLogits
from rskernels.ops.log_prob import target_log_prob
from rskernels.ops.mean import accepted_mean, masked_mean
from rskernels.ops.ratios import bernoulli, bernoulli_mask
from rskernels.ops.sequences import SequenceAcceptance, accept_prefix, accept_sequences
from rskernels.ops.speculative import SpeculativeResult, speculative_sample

__all__ = [
    "Acceptance",
    "ColumnOrder",
    "LinearLogits",
    "SequenceAcceptance",
    "SpeculativeResult",
    "accept",
    "accept_mask",
    "accept_prefix",
    "accept_sequences",
    "accepted_mean",
    "bernoulli",
    "bernoulli_mask",
    "masked_mean",
    "speculative_sample",
    "target_log_prob",
    "verify",
    "verify_mask",
]
