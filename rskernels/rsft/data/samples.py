"""Labelled samples, and what is wrong with data that cannot give them."""

from typing import NamedTuple

from torch import Tensor


class DataError(ValueError):
    """Data that are missing or malformed, or that cannot give the imbalance or split asked for."""


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
