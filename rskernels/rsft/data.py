"""Real data, split before anything else, with a training pool made long-tailed on purpose."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rskernels.rsft.extras import train_extra


class DataError(ValueError):
    """An imbalance or test fraction that the data at hand cannot give."""


class Images(NamedTuple):
    """Labelled images.

    Attributes
    ----------
    images : Tensor
        float32 ``[N, 1, H, W]``, in [0, 1].
    labels : Tensor
        int64 ``[N]``.
    """

    images: Tensor
    labels: Tensor


class Data(NamedTuple):
    """What a run trains and is judged on.

    Attributes
    ----------
    pool : Images
        The long-tailed training pool.
    test : Images
        The balanced test set; it shares no image with the pool.
    counts : Tensor
        int64 ``[C]``, images of each class in the pool.
    """

    pool: Images
    test: Images
    counts: Tensor


def load_digits() -> Images:
    """Load scikit-learn's bundled digits: 1,797 real 8x8 images of ten classes.

    Raises
    ------
    ModuleNotFoundError
        If scikit-learn is not installed.
    """
    with train_extra():
        from sklearn import datasets
    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32) / 16)
    return Images(images[:, None], torch.from_numpy(digits.target.astype(np.int64)))


DATASETS: dict[str, Callable[[], Images]] = {"digits": load_digits}


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
    smallest = int(labels.bincount().min())
    per_class = round(test_fraction * smallest)
    if not 0 < per_class < smallest:
        raise DataError(
            f"test_fraction={test_fraction} takes {per_class} of the {smallest} rows of the "
            f"smallest class; it must leave at least one for train and one for test"
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
            f"imbalance={imbalance}: accepted are 1 (balanced) to {available}, the images at hand "
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


def load_data(
    name: str, *, imbalance: float, test_fraction: float, generator: torch.Generator
) -> Data:
    """Load a data set, split it, then thin the training part to a long tail.

    Parameters
    ----------
    name : str
        One of ``DATASETS``.
    imbalance : float
        Size of the pool's most frequent class over that of its rarest.
    test_fraction : float
        Share of the smallest class held out, the same number of images of every class.
    generator : torch.Generator
        Decides the split, the pool and which classes are rare.

    Raises
    ------
    ValueError
        For an unknown name.
    DataError
        For an imbalance or fraction that leaves a class empty.
    """
    if name not in DATASETS:
        raise ValueError(f"data={name!r}: accepted are {', '.join(DATASETS)}")
    images, labels = DATASETS[name]()
    train, test = split_balanced(labels, test_fraction, generator)
    pool = train[make_long_tailed(labels[train], imbalance, generator)]
    return Data(
        Images(images[pool], labels[pool]),
        Images(images[test], labels[test]),
        labels[pool].bincount(minlength=int(labels.max()) + 1),
    )


def log_class_balance(counts: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Return the log density that re-balances the classes of a pool.

    ``log p̂_c = log(wanted_c) − log(n_c / Σn)``: the wanted share of class c over its share of
    the pool. Any constant added to it is absorbed by the envelope constant M.

    Parameters
    ----------
    counts : Tensor
        int64 ``[C]``, rows of each class in the pool, all positive.
    wanted : Tensor, optional
        ``[C]``, the wanted class density, non-negative with a positive sum; uniform by default.

    Returns
    -------
    Tensor
        float32 ``[C]``.

    Raises
    ------
    ValueError
        If a class of the pool is empty, or wanted has another shape or is no density.
    """
    if not bool((counts > 0).all()):
        raise ValueError(f"every class needs a row in the pool, counts are {counts.tolist()}")
    share = torch.ones(len(counts)) if wanted is None else wanted
    if share.shape != counts.shape or not bool((share >= 0).all()) or not bool(share.sum() > 0):
        raise ValueError(
            f"wanted must hold {len(counts)} non-negative numbers, not all 0, got {share.tolist()}"
        )
    share = share.double() / share.double().sum()
    return (share.log() - (counts.double() / counts.sum()).log()).float()


def rows_of_each_class(labels: Tensor) -> list[Tensor]:
    """Row numbers of each class, 0 … C−1."""
    return [torch.nonzero(labels == label)[:, 0] for label in range(int(labels.max()) + 1)]
