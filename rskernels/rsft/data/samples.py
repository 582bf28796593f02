"""Labelled samples, a pool and test set of them, and the arrays that they are made of."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Samples(NamedTuple):
    """Labelled samples.

    Attributes
    ----------
    inputs : Tensor
        float32 ``[N, C, H, W]``, images, or ``[N, D]``, rows of a table. Images may be uint8, which
        stand for 0 to 1: `as_float`. int64 ``[N, L]`` are the tokens of texts, −1 behind their
        ends.
    labels : Tensor
        int64 ``[N]``.
    """

    inputs: Tensor
    labels: Tensor

    def take(self, rows: Tensor) -> "Samples":
        """Return some of the rows, by their numbers, int64 ``[n]``."""
        return Samples(self.inputs[rows], self.labels[rows])


def as_float(inputs: Tensor) -> Tensor:
    """Return inputs as float32: bytes divided by 255, others as they are."""
    return inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs


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
