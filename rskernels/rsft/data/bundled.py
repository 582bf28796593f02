"""Real data, split before anything else, with a training pool made long-tailed on purpose."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rskernels.rsft.data.files import read_mnist, read_npz
from rskernels.rsft.data.samples import DataError, Samples
from rskernels.rsft.extras import train_extra


class Data(NamedTuple):
    """What a run trains and is judged on.

    Attributes
    ----------
    pool : Samples
        The long-tailed training pool.
    test : Samples
        The test set, which shares no row with the pool: balanced, or as the files have it.
    counts : Tensor
        int64 ``[C]``, rows of each class in the pool.
    """

    pool: Samples
    test: Samples
    counts: Tensor


def load_digits() -> Samples:
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
    return Samples(images[:, None], torch.from_numpy(digits.target.astype(np.int64)))


def load_wine() -> Samples:
    """Load scikit-learn's bundled wine: 178 rows of 13 measurements, three cultivars.

    Raises
    ------
    ModuleNotFoundError
        If scikit-learn is not installed.
    """
    with train_extra():
        from sklearn import datasets
    return _table(datasets.load_wine())


def load_breast_cancer() -> Samples:
    """Load scikit-learn's bundled breast cancer: 569 rows of 30 measurements, two diagnoses.

    Raises
    ------
    ModuleNotFoundError
        If scikit-learn is not installed.
    """
    with train_extra():
        from sklearn import datasets
    return _table(datasets.load_breast_cancer())


BUNDLED: dict[str, Callable[[], Samples]] = {
    "digits": load_digits,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
}
FILES: dict[str, Callable[[Path], tuple[Samples, Samples | None]]] = {
    "mnist": read_mnist,
    "npz": read_npz,
}
DATASETS = (*BUNDLED, "multimodal", *FILES)


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


def load_data(
    name: str,
    *,
    path: str | None = None,
    imbalance: float,
    test_fraction: float,
    generator: torch.Generator,
) -> Data:
    """Load a data set, split it, then thin the training part to a long tail.

    Columns of a table are brought to mean 0 and standard deviation 1 of the pool; images stay.

    Parameters
    ----------
    name : str
        One of ``DATASETS``.
    path : str, optional
        Of "mnist" the folder, of "npz" the file.
    imbalance : float
        Size of the pool's most frequent class over that of its rarest.
    test_fraction : float
        Share of the smallest class held out, the same number of rows of every class. Not read
        where the files say what the test set is.
    generator : torch.Generator
        Decides the split, the pool and which classes are rare.

    Raises
    ------
    ValueError
        For an unknown name, or a path that is missing or not asked for.
    DataError
        For files that are missing or malformed, or an imbalance or fraction that leaves a class
        empty.
    """
    check_source(name, path)
    if name == "multimodal":
        # It stands upon this file.
        from rskernels.experiments.multimodal.data import load_multimodal

        return load_multimodal(
            imbalance=imbalance, test_fraction=test_fraction, generator=generator
        )
    if path is not None:
        everything, test = FILES[name](Path(path))
    else:
        everything, test = BUNDLED[name](), None
    train = torch.arange(len(everything.labels))
    if test is None:
        train, held_out = split_balanced(everything.labels, test_fraction, generator)
        test = everything.take(held_out)
    elif not torch.equal(test.labels.unique(), everything.labels.unique()):
        raise DataError(
            f"{path} has classes {everything.labels.unique().tolist()} to train on and "
            f"{test.labels.unique().tolist()} to test on"
        )
    pool = everything.take(train[make_long_tailed(everything.labels[train], imbalance, generator)])
    if pool.inputs.dim() == 2:
        spread, mean = torch.std_mean(pool.inputs, dim=0, correction=0)
        spread = spread.where(spread > 0, 1.0)
        pool, test = (Samples((s.inputs - mean) / spread, s.labels) for s in (pool, test))
    return Data(pool, test, pool.labels.bincount(minlength=int(test.labels.max()) + 1))


def check_source(name: str, path: str | None) -> None:
    """Raise ValueError if there is no data set of that name, or it lacks, or has, a path."""
    if name not in DATASETS:
        raise ValueError(f"data={name!r}: accepted are {', '.join(DATASETS)}")
    if (path is None) == (name in FILES):
        fault = "needs a path" if path is None else "is bundled and takes no path"
        raise ValueError(f"data={name!r} {fault}, got path={path!r}")


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


def _table(bunch: Any) -> Samples:
    return Samples(
        torch.from_numpy(bunch.data.astype(np.float32)),
        torch.from_numpy(bunch.target.astype(np.int64)),
    )
