"""A test set split off before anything else, a pool made long-tailed, and what balances it."""

import torch
from torch import Tensor

from rskernels.rsft.errors import DataError


def split_balanced(
    labels: Tensor, test_fraction: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Split rows into train and test, with equally many test rows of every class.

    Parameters
    ----------
    labels : Tensor
        int64 ``[N]``, classes 0 … C−1.
    test_fraction : float
        Share of the smallest class that goes to the test set, in (0, 1).
    generator : torch.Generator
        Source of the permutations.

    Returns
    -------
    (Tensor, Tensor)
        int64 row numbers of train and test; together every row once.

    Raises
    ------
    DataError
        If the fraction leaves a class without a train row or without a test row.
    """
    counts = labels.bincount()
    smallest = int(counts.min())
    per_class = round(test_fraction * smallest)
    if not 0 < per_class < smallest:
        raise DataError(
            f"test_fraction={test_fraction} takes {per_class} of the {smallest} rows of the "
            f"smallest class, {int(counts.argmin())}; it must leave at least one for train and one "
            "for test"
        )
    train, test = [], []
    for rows in rows_of_each_class(labels):
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        test.append(shuffled[:per_class])
        train.append(shuffled[per_class:])
    return torch.cat(train), torch.cat(test)


def long_tail_counts(available: int, classes: int, imbalance: float) -> Tensor:
    """Class sizes that fall geometrically from the most to the least frequent class.

    ``n_k = n_0 · imbalance^(−k/(C−1))`` with ``n_0 ≤ available`` the largest start for which
    ``n_0 / n_(C−1)`` is the imbalance asked for, to the rounding of ``n_0``.

    Returns
    -------
    Tensor
        int64 ``[C]``, falling.

    Raises
    ------
    DataError
        If imbalance is not in [1, available]: the rarest class would be empty.
    """
    if not 1 <= imbalance <= available:
        raise DataError(
            f"imbalance={imbalance}: accepted are 1 (balanced) to {available}, the rows at hand "
            f"of each class"
        )
    rarest = int(available / imbalance)
    rank = torch.arange(classes, dtype=torch.float64) / max(classes - 1, 1)
    return (round(rarest * imbalance) * imbalance**-rank).round().long()


def make_long_tailed(labels: Tensor, imbalance: float, generator: torch.Generator) -> Tensor:
    """Draw a long-tailed subset of rows; which class is rare is drawn too.

    Parameters
    ----------
    labels : Tensor
        int64 ``[N]``, classes 0 … C−1.
    imbalance : float
        Size of the most frequent class over that of the least frequent one.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    Tensor
        int64 row numbers, each at most once.
    """
    classes = rows_of_each_class(labels)
    counts = long_tail_counts(min(len(rows) for rows in classes), len(classes), imbalance)
    rank = torch.randperm(len(classes), generator=generator)
    return torch.cat(
        [
            rows[torch.randperm(len(rows), generator=generator)[: counts[k]]]
            for rows, k in zip(classes, rank.tolist(), strict=True)
        ]
    )


def log_class_balance(counts: Tensor, shares: Tensor | None = None) -> Tensor:
    """Return the log density that re-balances the classes of a pool.

    ``log p̂_c = log(share_c) − log(n_c / Σn)``: the share that class c is to have over its share of
    the pool. Any constant added to it is absorbed by the envelope constant M.

    Parameters
    ----------
    counts : Tensor
        int64 ``[C]``, rows of each class in the pool, all positive.
    shares : Tensor, optional
        ``[C]``, the density that the classes are to have, non-negative with a positive sum; uniform
        by default.

    Returns
    -------
    Tensor
        float32 ``[C]``.

    Raises
    ------
    ValueError
        If a class of the pool is empty, or `shares` has another shape or is no density.
    """
    if not bool((counts > 0).all()):
        raise ValueError(f"every class needs a row in the pool, counts are {counts.tolist()}")
    share = torch.ones(len(counts)) if shares is None else shares
    if share.shape != counts.shape or not bool((share >= 0).all()) or not bool(share.sum() > 0):
        raise ValueError(
            f"shares must hold {len(counts)} non-negative numbers, not all 0, got {share.tolist()}"
        )
    share = share.double() / share.double().sum()
    return (share.log() - (counts.double() / counts.sum()).log()).float()


def rows_of_each_class(labels: Tensor) -> list[Tensor]:
    """Row numbers of each class, 0 … C−1."""
    return [torch.nonzero(labels == label)[:, 0] for label in range(int(labels.max()) + 1)]
