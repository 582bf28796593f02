"""Images of a user's file: where their channels are, and what they are divided by."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from rskernels.rsft.data.samples import Named
from rskernels.rsft.data.tables import FINEST, LOST
from rskernels.rsft.errors import DataError
from rskernels.rsft.say import say

CHANNELS = (1, 3, 4)  # grey; red, green and blue; and alpha
BYTES = (128, 255)  # where the largest value of an image of bytes is
FAINT = 1 / 255  # a network would not see images below it
STANDARDISED = 10.0  # real numbers about 0 below it have unit spread
UNLIKE = 12.0  # ratio of largest values: less than 128 to 10, or of 12 bits to 8


def channels_first(x: Named, channels: str | None) -> Named:
    """Return images as ``[N, C, H, W]``, and tables as they are.

    Raises
    ------
    DataError
        If the shape tells no layout and `channels` is None, or it has no channels to be told of.
    """
    if x.values.ndim == 4:
        last = _are_last(x, channels)
        return Named(np.moveaxis(x.values, 3, 1), x.name) if last else x
    if channels is not None:
        raise DataError(
            f"{x.name} has shape {list(x.values.shape)} and so no channels: channels={channels!r} "
            "is for [N, C, H, W] and [N, H, W, C]"
        )
    if x.values.ndim == 2:
        return x
    _, height, width = x.values.shape
    say(
        f"{x.name}, {list(x.values.shape)}, is read as grey images of {height}x{width} pixels; a "
        "table is [N, D]"
    )
    return Named(x.values[:, None], x.name)


def _are_last(x: Named, channels: str | None) -> bool:
    """Say whether images ``[N, ., ., .]`` have their channels last, and tell the user."""
    _, one, two, three = x.values.shape
    # (channels, height, width), if first or last.
    readings = {"first": (one, two, three), "last": (three, one, two)}
    counted = [place for place, (count, *_) in readings.items() if count in CHANNELS]
    plausible = [place for place in counted if min(readings[place][1:]) > 1]
    if channels is None and len(plausible) != 1:
        told = " or ".join(f"{c} channels of {h}x{w} pixels" for c, h, w in readings.values())
        raise DataError(
            f"{x.name} has shape {list(x.values.shape)}, which may be {told}: say which by "
            "channels, first or last"
        )
    place = channels or plausible[0]
    if place == "last" or (channels is None and len(counted) > 1):
        count, height, width = readings[place]
        say(
            f"{x.name}, {list(x.values.shape)}, is read as {height}x{width} pixels of {count} "
            f"channels, which come {place}"
        )
    return place == "last"


class _Range(NamedTuple):
    """The lowest and the highest value, as Python numbers, of which integers are exact."""

    low: float
    high: float

    @property
    def largest(self) -> float:
        return float(max(-self.low, self.high))


def convert_images(parts: Sequence[Named]) -> list[torch.Tensor]:
    """Return images as float32, divided by one factor, which is said.

    Raises
    ------
    DataError
        If the parts have different scales, or float32 would round away how pixels differ.
    """
    ranges = [_Range(x.min().item(), x.max().item()) for x, _ in parts]
    whole = _Range(min(each.low for each in ranges), max(each.high for each in ranges))
    _check_scale(parts, ranges, whole)
    factor = _factor(whole, is_real=all(x.dtype.kind == "f" for x, _ in parts))
    told = f"{parts[0].name}, {parts[0].values.dtype}, {whole.low:g} to {whole.high:g}"
    # Bytes standing for 0 to 1 are what everybody expects.
    if factor != 1 and not (factor == 255 and all(x.dtype == np.uint8 for x, _ in parts)):
        say(f"{told}, is divided by {factor:g}")
    elif factor == 1 and whole.largest > 1:
        say(f"{told}, is not scaled: real numbers about 0 are taken as standardised")
    return [_divided(x, factor) for x, _ in parts]


def _check_scale(parts: Sequence[Named], ranges: Sequence[_Range], whole: _Range) -> None:
    smallest = min(each.largest for each in ranges)
    # Bytes are bytes, however dark a test set is.
    most = math.inf if all(x.dtype == np.uint8 for x, _ in parts) else UNLIKE * smallest
    if whole.largest >= STANDARDISED and (smallest <= 1 or whole.largest >= most):
        told = " and ".join(
            f"{x.name} {r.low} to {r.high}" for x, r in zip(parts, ranges, strict=True)
        )
        raise DataError(
            f"the images have different scales, {told}: bring them to one, such as 0 … 1"
        )
    span = whole.high - whole.low
    if span > 0 and LOST * span < FINEST * whole.largest:
        raise DataError(
            f"{parts[0].name} holds {whole.low} to {whole.high}, and float32 would round away how "
            "they differ: subtract what they have in common"
        )


def _factor(whole: _Range, *, is_real: bool) -> float:
    """Return what images are divided by."""
    if whole.low == whole.high == 0 or FAINT <= whole.largest <= 1:
        return 1.0
    if is_real and whole.low < 0 and 1 < whole.largest < STANDARDISED:
        return 1.0
    return 255.0 if whole.low >= 0 and BYTES[0] <= whole.high <= BYTES[1] else whole.largest


def _divided(x: np.ndarray, factor: float) -> torch.Tensor:
    """Return x / factor, float32, rounded once."""
    if factor == 1:
        return torch.from_numpy(np.ascontiguousarray(x, np.float32))
    out = np.empty(x.shape, np.float32)
    wide = np.result_type(x, np.float64)
    np.divide(x, factor, out=out, dtype=wide, casting="same_kind")
    return torch.from_numpy(out)
