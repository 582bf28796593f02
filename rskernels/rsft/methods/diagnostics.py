"""Whether Markov chains have converged, and how many independent draws theirs are worth."""

import torch
from torch import Tensor


def split_r_hat(draws: Tensor) -> Tensor:
    """Potential scale reduction of chains, each cut in two: near 1 where they agree.

    ``√(((n−1)/n·W + B/n) / W)`` with W the mean variance within, and B/n the variance between the
    means of, the half chains of n draws (Gelman et al., "Bayesian Data Analysis", 3rd ed., 2013,
    section 11.4).

    Parameters
    ----------
    draws : Tensor
        Floating ``[draws, chains, ...]``, of at least 4 draws.

    Returns
    -------
    Tensor
        float64 ``[...]``; NaN where nothing varies.

    Raises
    ------
    ValueError
        If the shape is not as above.
    """
    halves = _halves(draws)
    n = len(halves)
    within = halves.var(dim=0).mean(dim=0)
    between = halves.mean(dim=0).var(dim=0)
    return (((n - 1) / n * within + between) / within).sqrt()


def effective_sample_size(draws: Tensor) -> Tensor:
    """Independent draws whose mean is as certain as that of the chains.

    From the autocorrelation of the half chains, summed in pairs while those are positive and made
    to fall (Geyer, "Practical Markov chain Monte Carlo", 1992; Vehtari et al., "Rank-normalization,
    folding, and localization", Bayesian Analysis 16, 2021, without the ranks).

    Parameters
    ----------
    draws : Tensor
        Floating ``[draws, chains, ...]``, of at least 4 draws.

    Returns
    -------
    Tensor
        float64 ``[...]``; NaN where nothing varies.

    Raises
    ------
    ValueError
        If the shape is not as above.
    """
    halves = _halves(draws)
    n, chains = halves.shape[:2]
    centred = halves - halves.mean(dim=0)
    # Padded, so that the circle of the Fourier transform does not close.
    spectrum = torch.fft.rfft(centred, n=2 * n, dim=0)
    covariance = torch.fft.irfft(spectrum.abs().square(), n=2 * n, dim=0)[:n].mean(dim=1) / n
    within = covariance[0] * n / (n - 1)
    pooled = covariance[0] + halves.mean(dim=0).var(dim=0)
    correlation = 1 - (within - covariance) / pooled  # [n, ...]
    correlation[0] = 1
    pairs = correlation[: n // 2 * 2].unflatten(0, (n // 2, 2)).sum(dim=1)
    pairs = pairs.where((pairs > 0).cumprod(dim=0).bool(), 0).cummin(dim=0).values
    total = n * chains
    time = (2 * pairs.sum(dim=0) - 1).clamp(min=1 / torch.tensor(total).double().log10())
    return torch.where(within > 0, total / time, torch.nan)


def _halves(draws: Tensor) -> Tensor:
    """Return ``[n, 2·chains, ...]``, float64, of draws; one in the middle may be left out."""
    if draws.dim() < 2 or len(draws) < 4:
        raise ValueError(
            f"draws must be [draws, chains, ...] of at least 4 draws, got {list(draws.shape)}"
        )
    n = len(draws) // 2
    return torch.cat([draws[:n], draws[-n:]], dim=1).double()
