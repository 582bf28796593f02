"""Real data that scikit-learn bundles."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rskernels._python.extras import train_extra
from rskernels.rsft.data.samples import Samples


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


def _table(bunch: Any) -> Samples:
    return Samples(
        torch.from_numpy(bunch.data.astype(np.float32)),
        torch.from_numpy(bunch.target.astype(np.int64)),
    )
