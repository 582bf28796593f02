"""Rejection-sampling fine-tuning: training loops that decide by rejection what is used.

`run.train` runs the gradient `loop` on a `task`, whose samples one of the `rules` selects.
`methods` has what needs no such loop: proposals that are tuned, parameters that are drawn. `data`
is where rows come from, `artifacts` what a run leaves behind.
"""

from rskernels.rsft.config import LoopConfig
from rskernels.rsft.data import Data, Samples, draw_rows, log_class_balance, log_domain_densities
from rskernels.rsft.errors import CheckpointError, DataError, TrainingError
from rskernels.rsft.methods import (
    Chain,
    CouplingProposal,
    DefensiveProposal,
    FamilyProposal,
    Proposal,
    Round,
    Tuned,
    batched_loss,
    chain,
    effective_sample_size,
    independent,
    split_r_hat,
    tune,
)
from rskernels.rsft.rules import RULES, Rule, Selection, State
from rskernels.rsft.run import train
from rskernels.rsft.task import Epoch, Task, shuffled

__all__ = [
    "RULES",
    "Chain",
    "CheckpointError",
    "CouplingProposal",
    "Data",
    "DataError",
    "DefensiveProposal",
    "Epoch",
    "FamilyProposal",
    "LoopConfig",
    "Proposal",
    "Round",
    "Rule",
    "Samples",
    "Selection",
    "State",
    "Task",
    "TrainingError",
    "Tuned",
    "batched_loss",
    "chain",
    "draw_rows",
    "effective_sample_size",
    "independent",
    "log_class_balance",
    "log_domain_densities",
    "shuffled",
    "split_r_hat",
    "train",
    "tune",
]
