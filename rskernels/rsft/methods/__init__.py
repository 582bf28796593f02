"""What is fine-tuned or drawn by rejection without the gradient loop.

`tuning` fits a proposal to its own accepted draws, `proposals` are what it fits. `posterior` draws
parameters, each alone, `metropolis` in chains, which `diagnostics` judges.
"""

from rskernels.rsft.methods.diagnostics import effective_sample_size, split_r_hat
from rskernels.rsft.methods.metropolis import Chain, chain
from rskernels.rsft.methods.posterior import batched_loss, independent
from rskernels.rsft.methods.proposals import (
    CouplingProposal,
    DefensiveProposal,
    FamilyProposal,
    Proposal,
)
from rskernels.rsft.methods.tuning import Round, Tuned, tune

__all__ = [
    "Chain",
    "CouplingProposal",
    "DefensiveProposal",
    "FamilyProposal",
    "Proposal",
    "Round",
    "Tuned",
    "batched_loss",
    "chain",
    "effective_sample_size",
    "independent",
    "split_r_hat",
    "tune",
]
