"""Class priors that move while a model is trained, and a stream of rows that follows them."""

import torch
from torch import Tensor


def priors(rank: Tensor, imbalance: float, moved: float) -> Tensor:
    """Return class priors between a long tail and its reverse.

    ``π_k ∝ imbalance^((2·moved − 1)·rank_k/(C−1))``: the class of rank 0 is the most frequent at
    the start and the rarest at the end, and half way all are alike.

    Parameters
    ----------
    rank : Tensor
        int64 ``[C]``, a permutation of 0 … C−1.
    imbalance : float
        Most frequent class over the rarest, at the start and at the end.
    moved : float
        How far, in [0, 1].

    Returns
    -------
    Tensor
        float64 ``[C]``, of sum 1.
    """
    share = rank.double() / max(len(rank) - 1, 1)
    log_imbalance = torch.tensor(imbalance, dtype=torch.float64).log()
    return ((2 * moved - 1) * log_imbalance * share).softmax(0)


def draw_stream(labels: Tensor, prior: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw rows, with replacement, whose classes follow a prior.

    Parameters
    ----------
    labels : Tensor
        int64 ``[rows]``, with a row of every class.
    prior : Tensor
        ``[C]``, of sum 1.
    n : int
        How many.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    Tensor
        int64 ``[n]``, indices of rows.
    """
    weights = (prior / labels.bincount(minlength=len(prior)))[labels]
    return torch.multinomial(weights, n, replacement=True, generator=generator)
