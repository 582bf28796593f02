"""Any data set by its name, split; its training pool made long-tailed on purpose."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels.experiments.bundled import BUNDLED
from rskernels.experiments.multimodal.data import load_multimodal
from rskernels.rsft.data.digest import digest
from rskernels.rsft.data.files import read_mnist, read_npz
from rskernels.rsft.data.samples import Data, Samples
from rskernels.rsft.data.splits import make_long_tailed, split_balanced
from rskernels.rsft.errors import DataError
from rskernels.rsft.say import say

FILES = ("mnist", "npz")
DATASETS = (*BUNDLED, "multimodal", *FILES)


class Loaded(NamedTuple):
    """Data, and by what they are known again."""

    data: Data
    digest: str
    """Of inputs as float32, as `make_samples` scales them, and labels as int64: before the split,
    and before anything that processors compute differently."""


def load(
    name: str,
    *,
    path: str | None = None,
    channels: str | None = None,
    imbalance: float | None,
    test_fraction: float,
    generator: torch.Generator,
) -> Loaded:
    """Load a data set, split it, then thin the training part to a long tail if that is asked for.

    Columns of a table are brought to mean 0 and standard deviation 1 of the pool; images stay.
    What is left out of a file, or converted, is said.

    Parameters
    ----------
    name : str
        One of ``DATASETS``.
    path : str, optional
        Of "mnist" the folder, of "npz" the file.
    channels : str, optional
        "first" or "last", of the images of "npz"; told by their shape where that is unambiguous.
    imbalance : float, optional
        Size of the pool's most frequent class over that of its rarest. None, for files alone,
        leaves every row of the training part in the pool.
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
        For files that are missing or malformed, of one class alone or of rows all alike, or an
        imbalance or fraction that leaves a class empty.
    """
    check_source(name, path)
    if name == "multimodal":
        assert imbalance is not None
        data = load_multimodal(
            imbalance=imbalance, test_fraction=test_fraction, generator=generator
        )
        return Loaded(data, digest((*data.pool, *data.test)))
    everything, test = _read(name, path, channels)
    identity = digest((*everything, *(test or ())))
    train = torch.arange(len(everything.labels))
    if test is None:
        train, held_out = split_balanced(everything.labels, test_fraction, generator)
        test = everything.take(held_out)
    elif not torch.equal(test.labels.unique(), everything.labels.unique()):
        raise DataError(
            f"{path} has classes {everything.labels.unique().tolist()} to train on and "
            f"{test.labels.unique().tolist()} to test on"
        )
    chosen = train
    if imbalance is not None:
        chosen = train[make_long_tailed(everything.labels[train], imbalance, generator)]
    pool = everything.take(chosen)
    if path is not None:
        _tell(path, everything.labels[train], pool.labels, test.labels, imbalance)
        _check_rows_differ(path, pool)
    if pool.inputs.dim() == 2:
        pool, test = _standardised(pool, test, path)
    counts = pool.labels.bincount(minlength=int(test.labels.max()) + 1)
    return Loaded(Data(pool, test, counts), identity)


def _read(name: str, path: str | None, channels: str | None) -> tuple[Samples, Samples | None]:
    """Return the samples of a data set, and those that it says are for the test.

    Raises
    ------
    DataError
        If they are not to be had, or all of one class.
    """
    if path is None:
        return BUNDLED[name](), None
    where = Path(path).expanduser()
    everything, test = read_npz(where, channels) if name == "npz" else read_mnist(where)
    if int(everything.labels.max()) == 0:
        raise DataError(
            f"all {len(everything.labels)} rows of {path} are of one class: there is nothing to "
            "tell apart; at least two are needed"
        )
    return everything, test


def _tell(path: str, train: Tensor, pool: Tensor, test: Tensor, imbalance: float | None) -> None:
    """Say how many rows of a file are used for what, and how many are left out."""
    say(
        f"of {path}, {len(pool)} rows are trained on, of each class {_counts(pool)}, and "
        f"{len(test)} tested on, {_counts(test)}"
    )
    if len(pool) < len(train):
        say(
            f"imbalance={imbalance:g} leaves out {len(train) - len(pool)} rows: there are "
            f"{len(train)} to train on, of each class {_counts(train)}"
        )


def _counts(labels: Tensor, most: int = 20) -> str:
    """Return the rows of each class as a text; of many classes their range."""
    counts = labels.bincount()
    if len(counts) > most:
        return f"{counts.min()} to {counts.max()}"
    return ", ".join(map(str, counts.tolist()))


def _check_rows_differ(path: str, pool: Samples) -> None:
    if torch.equal(pool.inputs, pool.inputs[:1].expand_as(pool.inputs)):
        raise DataError(
            f"x of {path} is alike in all {len(pool.labels)} rows that are trained on, as far as "
            "float32 tells: there is nothing to tell them apart by"
        )


def _standardised(pool: Samples, test: Samples, path: str | None) -> list[Samples]:
    """Bring columns to mean 0 and standard deviation 1 of the pool; one that is constant to 0."""
    spread, mean = torch.std_mean(pool.inputs, dim=0, correction=0)
    constant = (pool.inputs.amin(dim=0) == pool.inputs.amax(dim=0)) | (spread == 0)
    if path is not None and constant.any():
        columns = constant.nonzero()[:, 0].tolist()
        say(
            f"{len(columns)} column(s) of {path} are not used, column {columns[0]} first: they "
            "hold one value, as far as float32 tells, in all rows that are trained on"
        )
    parts = []
    for samples in (pool, test):
        inputs = ((samples.inputs - mean) / spread).masked_fill(constant, 0.0)
        if not inputs.isfinite().all():
            column = int((~inputs.isfinite()).any(dim=0).nonzero()[0])
            raise DataError(
                f"column {column} of {path} holds, in rows to test on, numbers that are beyond "
                "float32 once those that are trained on have standard deviation 1"
            )
        parts.append(Samples(inputs, samples.labels))
    return parts


def check_source(name: str, path: str | None) -> None:
    """Raise ValueError if there is no data set of that name, or it lacks, or has, a path."""
    if name not in DATASETS:
        raise ValueError(f"data={name!r}: accepted are {', '.join(DATASETS)}")
    if (path is None) == (name in FILES):
        fault = "needs a path" if path is None else "is bundled and takes no path"
        raise ValueError(f"data={name!r} {fault}, got path={path!r}")
