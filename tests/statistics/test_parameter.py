"""Parameters drawn by rejection: acceptance of the walk, and the posterior of independent draws."""

import math

import pytest
import torch

from rskernels.rsft.methods.metropolis import chain
from rskernels.rsft.methods.posterior import independent

from .intervals import assert_inside, binomial

CHAINS, STEPS = 10_000, 100
DRAWS = 200_000


def quadratic(theta):
    return theta.square().sum(dim=1) / 2


@pytest.mark.parametrize("sigma", [0.8, 2.4])
def test_the_walk_accepts_as_often_as_it_must(sigma, seed):
    """Normal steps on a quadratic loss accept with (2/π)·arctan(2/σ), where the walk is at home."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(CHAINS, 1, generator=generator, dtype=torch.float64)
    walk = chain(quadratic, start, steps=STEPS, sigma=sigma, seed=seed + 1)
    expected = 2 / math.pi * math.atan(2 / sigma)
    # The steps of a chain are dependent, the chains are not.
    error = walk.acceptance.std() / math.sqrt(CHAINS)
    assert abs(walk.acceptance_rate - expected) <= 5 * error
    assert walk.sigma == sigma
    # The law is still N(0, 1).
    last = walk.samples[-1, :, 0]
    assert abs(last.mean()) <= 5 / math.sqrt(CHAINS)
    assert abs(last.square().mean() - 1) <= 5 * math.sqrt(2 / CHAINS)


def test_a_walk_of_one_step_accepts_a_binomial_count(seed):
    """The first steps of many walkers are independent."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(250_000, 1, generator=generator, dtype=torch.float64)
    walk = chain(quadratic, start, steps=4, sigma=2.4, seed=seed + 1)
    moved = (walk.samples[0] != start).sum()
    assert_inside("first steps", moved, binomial(len(start), 2 / math.pi * math.atan(2 / 2.4)))


@pytest.mark.parametrize("sigma", [None, 1.1])
def test_independent_draws_have_the_closed_form_of_the_posterior(sigma, seed):
    """A quadratic loss and a normal prior make a normal: precision A/τ + 1/s²."""
    precision = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    best = torch.tensor([0.7, -0.4], dtype=torch.float64)
    centre = torch.tensor([0.2, 0.1], dtype=torch.float64)
    prior, tau, least = 0.9, 0.8, 0.25

    def loss(theta):
        away = theta - best
        return least + ((away @ precision) * away).sum(dim=1) / 2

    result = independent(
        loss, DRAWS, centre=centre, prior=prior, sigma=sigma, tau=tau, least=least, seed=seed
    )
    inverse = precision / tau + torch.eye(2, dtype=torch.float64) / prior**2
    covariance = inverse.inverse()
    mean = covariance @ (precision @ best / tau + centre / prior**2)
    spread = covariance.diagonal().sqrt()
    away = result.samples - mean
    assert (away.mean(dim=0).abs() <= 5 * spread / math.sqrt(DRAWS)).all()
    # Of normal draws, the mean of a product has variance σ_ii·σ_jj + σ_ij².
    products = away.T @ away / DRAWS
    error = (spread[:, None].square() * spread.square() + covariance.square()).sqrt()
    assert ((products - covariance).abs() <= 5 * error / math.sqrt(DRAWS)).all()
    # The acceptance rate is the evidence over M.
    gap = best - centre
    marginal = tau * precision.inverse() + prior**2 * torch.eye(2, dtype=torch.float64)
    log_evidence = (
        -least / tau
        - gap @ marginal.inverse() @ gap / 2
        + torch.logdet(tau * precision.inverse()) / 2
        - torch.logdet(marginal) / 2
    )
    rate = math.exp(log_evidence - result.report.log_M)
    assert abs(result.acceptance_rate - rate) <= 5 * math.sqrt(rate * (1 - rate) / result.proposals)
    assert result.report.log_M == pytest.approx(
        2 * math.log((sigma or prior) / prior) - least / tau, abs=1e-12
    )
