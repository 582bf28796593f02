"""Proposals of known ratios for the tests of the sampler."""

import pytest
import torch

import rskernels
from rskernels import rejection_sample
from rskernels.law.streams import Stream

ROWS = 20_000


class Table:
    """Proposals that are the same however many are drawn at a time: rows 0, 1, 2, ..."""

    def __init__(self, log_ratio):
        self.log_ratio = log_ratio
        self.next = 0

    def sample(self, n):
        rows = torch.arange(self.next, self.next + n)
        self.next += n
        return rows.clamp(max=ROWS - 1)

    def log_prob(self, rows):
        return torch.zeros(len(rows))

    def target(self, rows):
        return self.log_ratio[rows]

    @staticmethod
    def accepted_at(log_ratio, log_M):
        u = rskernels.uniforms(len(log_ratio), seed=5, stream=Stream.SAMPLE)
        return (log_ratio.double() - log_M >= u.log()).nonzero()[:, 0]

    def draw(self, num_samples=500, **options):
        self.next = 0
        return rejection_sample(
            self.target, (self.sample, self.log_prob), num_samples, seed=5, **options
        )


@pytest.fixture
def table():
    """Log ratios of which a twentieth is above 1, and of which no test needs more."""
    return Table(0.6 * torch.randn(ROWS, generator=torch.Generator().manual_seed(1)))
