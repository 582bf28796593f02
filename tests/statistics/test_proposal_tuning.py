"""A tuned proposal: acceptance gained on a mixture in ten dimensions, and draws that stay exact."""

import math
import os

import numpy as np
import torch
from scipy import stats
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from rskernels import rejection_sample
from rskernels.rsft.methods.proposals import FamilyProposal
from rskernels.rsft.methods.tuning import tune

SEED = int(os.environ.get("RSKERNELS_TEST_SEED", "0"))
# The acceptance is some hundredths; 10**6 draws pass too, in half a minute.
DRAWS = int(os.environ.get("RSKERNELS_TUNED_DRAWS", "20000"))
GAIN = 5.0

SIZE = 10
SHARES = torch.tensor([0.3, 0.4, 0.3])
MEANS = torch.zeros(3, SIZE)
MEANS[0, 0], MEANS[1, 1], MEANS[2] = 1.5, 1.5, -0.5
SCALES = torch.tensor([0.6, 0.8, 0.7])
TARGET = MixtureSameFamily(
    Categorical(SHARES), Independent(Normal(MEANS, SCALES[:, None].expand(3, SIZE)), 1)
)
MISMATCHED = 1.5  # its spread; about one in a thousand is accepted


def assert_exact(samples):
    """T5 on each marginal; all ten fail by chance with probability 5e-8."""
    n = len(samples)
    steps = np.arange(n + 1) / n
    for axis in range(SIZE):
        x = np.sort(samples[:, axis].double().numpy())
        laws = zip(SHARES.tolist(), MEANS[:, axis].tolist(), SCALES.tolist(), strict=True)
        below = sum(share * stats.norm(mean, scale).cdf(x) for share, mean, scale in laws)
        distance = max((steps[1:] - below).max(), (below - steps[:-1]).max())
        assert distance <= math.sqrt(math.log(2 * SIZE / 5e-8) / (2 * n))


def test_tuning_gains_acceptance_and_stays_exact():
    start = FamilyProposal(
        MultivariateNormal, loc=torch.zeros(SIZE), scale_tril=MISMATCHED * torch.eye(SIZE)
    )
    tuned = tune(TARGET, start, rounds=1, draws=400, steps=250, seed=SEED + 31)
    assert tuned.rounds[0].acceptance_rate < 2e-3
    assert tuned.gain >= GAIN
    assert tuned.rounds[1].log_M < tuned.rounds[0].log_M - math.log(GAIN)
    assert_exact(tuned.samples)
    pair = (tuned.proposal.sample, tuned.proposal.log_prob)
    result = rejection_sample(TARGET, pair, DRAWS, log_M=tuned.envelope, seed=SEED + 32)
    assert result.acceptance_rate >= GAIN * tuned.rounds[0].acceptance_rate
    assert_exact(result.samples)
