"""Arrays of a user's file as samples: what they may be, and what is converted and said."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from rskernels.rsft.data.images import channels_first, convert_images
from rskernels.rsft.data.samples import Named, Samples
from rskernels.rsft.data.tables import convert_tables
from rskernels.rsft.errors import DataError
from rskernels.rsft.say import say

NUMBER_THEM = "np.unique(y, return_inverse=True)[1] numbers them so"
LARGEST = float(np.finfo(np.float32).max) / 2  # a difference of two is finite


class Part(NamedTuple):
    """Inputs and labels, of the training part or of the test set."""

    x: Named
    y: Named


def make_samples(parts: Sequence[Part], channels: str | None = None) -> list[Samples]:
    """Check arrays, convert them alike, and return them as samples.

    Parameters
    ----------
    parts : sequence of Part
        To train on and, if there is one, to test on. x is ``[N, D]``, ``[N, H, W]``,
        ``[N, C, H, W]`` or ``[N, H, W, C]``, real and finite; y ``[N]``, classes 0 … C−1.
        Images beyond 1, or below 1/255, are divided by 255 or their largest number; real ones
        that go below 0 and stay below 10 are not.
    channels : str, optional
        "first" or "last", of images ``[N, ., ., .]``; told by the shape where that is unambiguous.

    Raises
    ------
    DataError
        If a dtype, shape or value is not as there, or both parts do not go together; it names the
        array.
    """
    for part in parts:
        _check_inputs(part.x)
    labels = [_labels(part) for part in parts]
    inputs = [channels_first(part.x, channels) for part in parts]
    for other in inputs[1:]:
        if other.values.shape[1:] != inputs[0].values.shape[1:]:
            raise DataError(
                f"{other.name} has samples {list(other.values.shape[1:])}, "
                f"{inputs[0].name} {list(inputs[0].values.shape[1:])}"
            )
    convert = convert_tables if inputs[0].values.ndim == 2 else convert_images
    return [Samples(*each) for each in zip(convert(inputs), labels, strict=True)]


def _check_inputs(x: Named) -> None:
    values = x.values
    if values.ndim not in (2, 3, 4) or 0 in values.shape:
        raise DataError(
            f"{x.name} has shape {list(values.shape)}; accepted are [N, D], [N, H, W], "
            "[N, C, H, W] and [N, H, W, C]"
        )
    if values.dtype.kind not in "fiub":
        raise DataError(f"{x.name} is {values.dtype}, real numbers are needed")
    with np.errstate(invalid="ignore"):
        is_finite = max(-float(values.min()), float(values.max())) <= LARGEST
    if not is_finite:
        rows = values.reshape(len(values), -1)
        bad = [i for i, row in enumerate(rows) if not (np.abs(row) <= LARGEST).all()]
        raise DataError(
            f"{x.name} holds a number that is NaN, infinite or beyond float32, "
            f"in {len(bad)} of its {len(rows)} rows, row {bad[0]} first"
        )


def _labels(part: Part) -> torch.Tensor:
    """Return labels as int64 ``[N]``; one column of them is converted."""
    values, name = part.y
    if values.ndim == 2 and values.shape[1] == 1 and values.dtype.kind in "iu":
        values = values[:, 0]
        say(f"{name}, {list(part.y.values.shape)}, is read as labels [{len(values)}]")
    if values.dtype.kind not in "iu" or values.shape != part.x.values.shape[:1]:
        raise DataError(
            f"{name} is {values.dtype} {list(values.shape)}, integers [{len(part.x.values)}] are "
            f"needed, one for each row of {part.x.name}{_advice(values)}"
        )
    lowest, highest = int(values.min()), int(values.max())
    if not 0 <= lowest <= highest < len(values):
        raise DataError(
            f"{name} holds {lowest} to {highest}; classes must be 0 … C−1, and all must "
            f"occur; {NUMBER_THEM}"
        )
    labels = values.astype(np.int64)
    empty = np.flatnonzero(np.bincount(labels) == 0)
    if len(empty):
        raise DataError(f"{name} holds no row of class {empty[0]}, but of {highest}; {NUMBER_THEM}")
    return torch.from_numpy(labels)


def _advice(y: np.ndarray) -> str:
    """Return how to make labels of what is none, as the end of a sentence."""
    if y.ndim == 2:
        return "; of one column a class, y.argmax(axis=1) makes them"
    return f"; {NUMBER_THEM}" if y.dtype.kind not in "iu" else ""
