"""Any data set by its name, split, with a training pool made long-tailed on purpose."""

from collections.abc import Callable
from pathlib import Path

import torch

from rskernels.experiments.bundled import BUNDLED
from rskernels.experiments.multimodal.data import load_multimodal
from rskernels.rsft.data.files import read_mnist, read_npz
from rskernels.rsft.data.samples import Data, Samples
from rskernels.rsft.data.splits import make_long_tailed, split_balanced
from rskernels.rsft.errors import DataError

FILES: dict[str, Callable[[Path], tuple[Samples, Samples | None]]] = {
    "mnist": read_mnist,
    "npz": read_npz,
}
DATASETS = (*BUNDLED, "multimodal", *FILES)


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
