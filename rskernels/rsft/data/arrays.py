"""Arrays of a user's file as samples: what they may be, and what is converted and said."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from rskernels.rsft.data.samples import Samples
from rskernels.rsft.errors import DataError
from rskernels.rsft.say import say

CHANNELS = (1, 3, 4)  # grey; red, green and blue; and alpha
BYTES = (128, 255)  # where the largest value of an image of bytes is
LARGEST_UNSCALED = 16.0  # of images of real numbers, which may be standardised
FINEST = 2.0**-24  # relative rounding of float32
LOST = 1e-3  # of a column's spread, what rounding to float32 may take
CONSTANT = 1e-12  # spread over mean, of float64
MOST_LISTED = 10
BLOCK = 1 << 16  # rows
NUMBER_THEM = "np.unique(y, return_inverse=True)[1] numbers them so"
LARGEST = float(np.finfo(np.float32).max) / 2  # a difference of two is finite


class Named(NamedTuple):
    """An array, and how it is called in what is said of it."""

    values: np.ndarray
    name: str


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
        Images of bytes, or of any whole numbers, or beyond 16, are scaled to 0 … 1.
    channels : str, optional
        "first" or "last", of images ``[N, ., ., .]``; told by the shape where that is unambiguous.

    Raises
    ------
    DataError
        If a dtype, shape or value is not as there; it names the array.
    """
    for part in parts:
        _check_inputs(part.x)
    labels = [_labels(part) for part in parts]
    inputs = [_channels_first(part.x, channels) for part in parts]
    for other in inputs[1:]:
        if other.values.shape[1:] != inputs[0].values.shape[1:]:
            raise DataError(
                f"{other.name} has samples {list(other.values.shape[1:])}, "
                f"{inputs[0].name} {list(inputs[0].values.shape[1:])}"
            )
    convert = _tables if inputs[0].values.ndim == 2 else _images
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


def _channels_first(x: Named, channels: str | None) -> Named:
    """Return images as ``[N, C, H, W]``, and tables as they are."""
    if x.values.ndim == 3:
        return Named(x.values[:, None], x.name)
    if x.values.ndim == 4 and _channels_are_last(x, channels):
        return Named(np.moveaxis(x.values, 3, 1), x.name)
    return x


def _channels_are_last(x: Named, channels: str | None) -> bool:
    """Say whether images ``[N, ., ., .]`` have their channels last, and tell the user."""
    _, one, two, three = x.values.shape
    # (channels, height, width), if first or last.
    readings = {"first": (one, two, three), "last": (three, one, two)}
    plausible = [
        place
        for place, (count, height, width) in readings.items()
        if count in CHANNELS and min(height, width) > 1
    ]
    if channels is None and len(plausible) != 1:
        told = " or ".join(f"{c} channels of {h}x{w} pixels" for c, h, w in readings.values())
        raise DataError(
            f"{x.name} has shape {list(x.values.shape)}, which may be {told}: say which by "
            "channels, first or last"
        )
    place = channels or plausible[0]
    if place == "last":
        count, height, width = readings[place]
        say(
            f"{x.name}, {list(x.values.shape)}, is read as {height}x{width} pixels of {count} "
            "channels, which come last"
        )
    return place == "last"


def _images(parts: Sequence[Named]) -> list[torch.Tensor]:
    """Return images as float32, scaled by one factor."""
    factors = [_factor(x) for x, _ in parts]
    if len({factor == 1 for factor in factors}) > 1:
        told = " and ".join(f"{name} {x.min()} to {x.max()}" for x, name in parts)
        raise DataError(f"the images have different scales, {told}: bring them to one")
    factor = max(factors)
    # Bytes standing for 0 to 1 are what everybody expects.
    if factor != 1 and not (factor == 255 and all(x.dtype == np.uint8 for x, _ in parts)):
        say(f"{parts[0].name}, {parts[0].values.dtype}, is divided by {factor:g}")
    images = [torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x, _ in parts]
    # In place: the arrays are a file's, which nothing else reads.
    return images if factor == 1 else [x.div_(factor) for x in images]


def _factor(x: np.ndarray) -> float:
    """Return what images are divided by."""
    lowest, highest = float(x.min()), float(x.max())
    largest = max(-lowest, highest)
    if largest <= 1 or (x.dtype.kind == "f" and (lowest < 0 or largest <= LARGEST_UNSCALED)):
        return 1.0
    return 255.0 if lowest >= 0 and BYTES[0] <= highest <= BYTES[1] else largest


def _tables(parts: Sequence[Named]) -> list[torch.Tensor]:
    """Return tables as float32, shifted where float32 would lose a column's spread."""
    x, name = parts[0]
    mean = x.mean(axis=0, dtype=np.float64)
    # A block at a time: in float64 a large table may not fit into memory.
    blocks = (np.square(x[i : i + BLOCK] - mean).sum(axis=0) for i in range(0, len(x), BLOCK))
    spread = np.sqrt(np.sum(list(blocks), axis=0) / len(x))
    # What rounding alone makes of a constant is no spread.
    far = (np.abs(mean) * FINEST > LOST * spread) & (spread > CONSTANT * np.abs(mean))
    if not far.any():
        return [torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x, _ in parts]
    columns = np.flatnonzero(far)
    more = f" and {len(columns) - MOST_LISTED} more" if len(columns) > MOST_LISTED else ""
    say(
        f"{name}: the mean of column(s) {', '.join(map(str, columns[:MOST_LISTED]))}{more} is "
        "subtracted, since float32 would round away how they differ"
    )
    centre = np.where(far, mean, 0.0)
    return [torch.from_numpy((x - centre).astype(np.float32)) for x, _ in parts]
