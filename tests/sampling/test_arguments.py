"""``rejection_sample``: what it refuses, by a message that says what is accepted."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.distributions import Beta, Dirichlet, Laplace, Normal

from rskernels import Envelope, rejection_sample
from rskernels.rsft import FamilyProposal

ARGUMENTS = [
    ({"num_samples": -1}, ValueError, "num_samples must be at least 0, got -1"),
    ({"num_samples": 10**400}, ValueError, r"num_samples must be below 2\*\*63"),
    ({"num_samples": 1.5}, TypeError, "num_samples must be an int, got float"),
    ({"num_samples": True}, TypeError, "num_samples must be an int, got bool"),
    ({"pilot": 0}, ValueError, "pilot must be at least 1, got 0"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
    ({"max_proposals": 0}, ValueError, "max_proposals must be at least 1, got 0"),
    ({"max_seconds": 0}, ValueError, "max_seconds must be above 0, got 0"),
    ({"max_seconds": "1"}, TypeError, "max_seconds must be a float, got str"),
    ({"min_acceptance": 2.0}, ValueError, r"min_acceptance must be in \(0, 1\], got 2.0"),
    ({"min_acceptance": math.nan}, ValueError, "min_acceptance must be above 0, got nan"),
    ({"log_M": math.inf}, ValueError, "log_M must be finite, got inf"),
    ({"max_seconds": 10**400}, ValueError, "max_seconds must fit float64, got a larger int"),
    ({"max_seconds": -(10**5000)}, ValueError, "max_seconds must fit float64, got a larger int"),
    ({"min_acceptance": Fraction(10**400)}, ValueError, "min_acceptance must fit float64"),
    ({"log_M": 10**400}, ValueError, "log_M must fit float64, got a larger int"),
    ({"log_M": Fraction(-(10**400))}, ValueError, "log_M must fit float64, got a larger Fraction"),
    ({"log_M": "max"}, TypeError, "log_M must be a float, an Envelope or None, got str"),
    ({"log_M": Envelope(groups=3)}, ValueError, "needs an envelope of one group, got 3"),
    (
        {"log_M": Envelope(), "on_violation": "thin"},
        ValueError,
        "envelope says on_violation='cap', got 'thin' besides",
    ),
    ({"on_violation": "ignore"}, ValueError, "on_violation must be one of cap, raise, thin"),
    ({"seed": 1, "generator": torch.Generator()}, ValueError, "at most one of them"),
    ({"seed": torch.tensor([1])}, TypeError, "seed must be an int, got a tensor"),
    ({"seed": 2**64}, ValueError, "seed must fit 64 bits"),
    ({"generator": 3}, TypeError, "generator must be a torch.Generator, got int"),
    ({"log_prob": 3}, TypeError, "log_prob must be a callable or a Distribution, got int"),
    ({"proposal": Normal}, TypeError, r"a pair \(sample, log_prob\) of callables, got type"),
    (
        {"proposal": FamilyProposal(Normal, loc=torch.tensor(0.0), scale=torch.tensor(1.0))},
        TypeError,
        r"got FamilyProposal; give \(proposal.sample, proposal.log_prob\)",
    ),
    ({"proposal": (torch.rand, 3)}, TypeError, "of callables, got tuple"),
    (
        {"proposal": Normal(torch.zeros(3), 1.0)},
        ValueError,
        r"proposal is a batch of distributions, \[3\]; torch.distributions.Independent makes one",
    ),
    ({"log_prob": Beta(torch.ones(2), 1.0)}, ValueError, r"log_prob is a batch of .*\[2\]"),
    (
        {"log_prob": Dirichlet(torch.ones(3))},
        ValueError,
        r"the target's draws have shape \[3\], the proposal's \[\]",
    ),
]

RESULTS = [
    ({"log_prob": lambda x: 3.0}, TypeError, "target's log_prob must return a tensor, got float"),
    ({"log_prob": lambda x: x.long()}, TypeError, "must return float32, .*, got torch.int64"),
    (
        {"log_prob": lambda x: x[:, None]},
        ValueError,
        r"one number a draw, \[64\] for draws \[64\], got \[64, 1\]",
    ),
    ({"log_prob": lambda x: x.sum()}, ValueError, r"target's log_prob .*, got \[\]"),
    ({"log_prob": lambda x: x.to("meta")}, ValueError, "is on meta, the draws are on cpu"),
    (
        {"proposal": (torch.rand, lambda x: x[:3])},
        ValueError,
        r"the proposal's log_prob .*, got \[3\]",
    ),
    ({"proposal": (lambda n: [0] * n, len)}, TypeError, "sample must return a tensor, got list"),
    (
        {"proposal": (lambda n: torch.rand(3, n), len)},
        ValueError,
        r"sample must return \[n, ...\] for n = 64, got \[3, 64\]",
    ),
]


@pytest.mark.parametrize(("change", "kind", "message"), ARGUMENTS + RESULTS)
def test_what_is_refused(change, kind, message):
    arguments = {"log_prob": Normal(0.0, 1.0), "proposal": Laplace(0.0, 1.0), "num_samples": 5}
    with pytest.raises(kind, match=message):
        rejection_sample(**{**arguments, "pilot": 64, **change})


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (torch.zeros(2), r"\[2\], torch.float32, cpu, those before were \[3\], torch.float32, cpu"),
        (torch.zeros(3).double(), r"these are \[3\], torch.float64, cpu, those before"),
    ],
)
def test_draws_that_change_between_batches_are_refused(then, message):
    kinds = iter([torch.zeros(3), then])
    proposal = (lambda n: next(kinds).expand(n, -1), lambda x: x[:, 0].float())
    with pytest.raises(ValueError, match=message):
        rejection_sample(proposal[1], proposal, 100, log_M=1.0, batch_size=10, seed=1)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.uint64])
def test_numpy_numbers_are_those_of_python(kind):
    arguments = (Normal(0.0, 1.0), Laplace(0.0, 1.0))
    # uint8 would wrap in the sums of a run, uint64 turn them into floats.
    counts = {"num_samples": 100, "pilot": 90, "batch_size": 70, "max_proposals": 120, "seed": 5}
    limits = {"max_seconds": 60.0, "min_acceptance": 0.5, "return_partial": True}
    expected = rejection_sample(*arguments, **counts, **limits)
    limits = {name: np.float32(limits[name]) for name in ("max_seconds", "min_acceptance")}
    counts = {name: kind(value) for name, value in counts.items()}
    result = rejection_sample(*arguments, **counts, **limits, return_partial=np.True_)
    assert torch.equal(result.samples, expected.samples)
    assert result.report.drawn == expected.report.drawn
    assert type(result.proposals) is type(result.report.pilot) is int
