"""Labelled samples, a pool and test set of them, and the arrays that they are made of."""

from typing import NamedTuple

import numpy as np
from torch import Tensor


class Samples(NamedTuple):
    """Labelled samples.

    Attributes
    ----------
    inputs : Tensor
        float32 ``[N, C, H, W]``, images, or ``[N, D]``, rows of a table.
    labels : Tensor
        int64 ``[N]``.
    """

    inputs: Tensor
    labels: Tensor

    def take(self, rows: Tensor) -> "Samples":
        """Return some of the rows, by their numbers, int64 ``[n]``."""
        return Samples(self.inputs[rows], self.labels[rows])


class Data(NamedTuple):
    """What a run trains and is judged on.

    Attributes
    ----------
    pool : Samples
        The training pool.
    test : Samples
        The test set, which shares no row with the pool: balanced, or as the files have it.
    counts : Tensor
        int64 ``[C]``, rows of each class in the pool.
    """

    pool: Samples
    test: Samples
    counts: Tensor


class Named(NamedTuple):
    """An array, and how it is called in what is said of it."""

    values: np.ndarray
    name: str
