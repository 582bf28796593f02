"""Convergence diagnostics, against processes of known effective sample size."""

import pytest
import torch

from rskernels.rsft.methods.diagnostics import effective_sample_size, split_r_hat


def autoregression(rho, draws=2000, chains=8, seed=0):
    """Return chains ``[draws, chains]`` of N(0, 1), each draw correlated by rho with the last."""
    noise = torch.randn(draws, chains, generator=torch.Generator().manual_seed(seed)).double()
    x = noise.clone()
    for t in range(1, draws):
        x[t] = rho * x[t - 1] + (1 - rho**2) ** 0.5 * noise[t]
    return x


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.5, 0.9])
def test_effective_sample_size_of_an_autoregression(rho):
    x = autoregression(rho)
    expected = x.numel() * (1 - rho) / (1 + rho)
    assert float(effective_sample_size(x)) == pytest.approx(expected, rel=0.2)


def test_r_hat_is_one_where_chains_agree():
    assert float(split_r_hat(autoregression(0.5))) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("fault", ["apart", "drifting"])
def test_r_hat_and_size_tell_of_chains_that_do_not_agree(fault):
    x = autoregression(0.0)
    if fault == "apart":
        x[:, 0] += 3.0
    else:
        x += torch.linspace(-2, 2, len(x))[:, None]
    assert float(split_r_hat(x)) > 1.1
    assert float(effective_sample_size(x)) < 200


def test_r_hat_by_hand():
    x = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
    # Halves (0, 2) and (4, 6): W = 2, variance of the means 8.
    assert float(split_r_hat(x)) == pytest.approx(((0.5 * 2 + 8) / 2) ** 0.5)


def test_every_parameter_has_its_own_and_what_does_not_vary_has_none():
    x = torch.stack([autoregression(0.0), autoregression(0.9), torch.ones(2000, 8)], dim=2)
    size, r_hat = effective_sample_size(x), split_r_hat(x)
    assert size.shape == r_hat.shape == (3,)
    assert size[0] > 3 * size[1]
    assert size[2].isnan()
    assert r_hat[2].isnan()


@pytest.mark.parametrize("shape", [(8,), (3, 2)])
def test_too_few_draws_are_refused(shape):
    for diagnostic in (split_r_hat, effective_sample_size):
        with pytest.raises(ValueError, match="at least 4 draws"):
            diagnostic(torch.zeros(shape))
