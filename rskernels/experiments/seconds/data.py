"""The task: distorted handwritten digits, many alike of frequent classes, few of rare ones."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rskernels.experiments.bundled import load_digits
from rskernels.rsft.data.splits import log_class_balance, long_tail_counts, split_balanced

SIDE = 16
"""Pixels of an image's side."""
CLASSES = 10
TEST_FRACTION = 0.3


class Pool(NamedTuple):
    """What is trained on, and what it is judged by."""

    inputs: Tensor
    """float32 ``[N, 256]``."""
    labels: Tensor
    """int64 ``[N]``, some of them wrong."""
    log_balance: Tensor
    """float32 ``[N]``, log p̂: even classes over the labels as they are."""
    test_inputs: Tensor
    test_labels: Tensor


def make_pool(largest: int, imbalance: float, noise: float, test: int, seed: int) -> Pool:
    """Draw a pool and a test set that share no original image.

    Each row is a bundled image of 8x8, doubled in size, turned, scaled, sheared, moved, and with
    noise added. A class has ``largest · imbalance^(-k/9)`` rows, its place k drawn: rows of a
    frequent class come from few originals many times over, as frames of a video or copies in a
    crawl do.

    Parameters
    ----------
    largest : int
        Rows of the most frequent class.
    imbalance : float
        Over those of the rarest.
    noise : float
        Share of rows whose label is drawn anew, from all classes.
    test : int
        Rows of the test set, evenly of all classes, their labels right.
    seed : int
        Decides all.
    """
    generator = torch.Generator().manual_seed(seed)
    digits = load_digits()
    train, held_out = split_balanced(digits.labels, TEST_FRACTION, generator)
    counts = long_tail_counts(largest, CLASSES, imbalance)
    counts = counts[torch.randperm(CLASSES, generator=generator)]
    rows = _copies(digits.labels, train, counts, generator)
    even = torch.full((CLASSES,), test // CLASSES)
    test_rows = _copies(digits.labels, held_out, even, generator)
    labels = digits.labels[rows]
    wrong = torch.rand(len(rows), generator=generator) < noise
    drawn = torch.randint(CLASSES, (len(rows),), generator=generator)
    labels = torch.where(wrong, drawn, labels)
    balance = log_class_balance(labels.bincount(minlength=CLASSES))
    return Pool(
        distort(digits.inputs[rows], generator),
        labels,
        balance[labels],
        distort(digits.inputs[test_rows], generator),
        digits.labels[test_rows],
    )


def distort(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images ``[N, 1, 8, 8]`` as rows ``[N, 256]``, no two distorted alike."""
    n = len(images)

    def uniform(bound: float) -> Tensor:
        return (2 * torch.rand(n, generator=generator) - 1) * bound

    angle, shear = uniform(math.radians(20)), uniform(0.25)
    scale = 1 + uniform(0.15)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = [cos, sin + shear, uniform(0.2), -sin, cos, uniform(0.2)]
    grid = F.affine_grid(
        torch.stack(rows, 1).view(n, 2, 3), [n, 1, SIDE, SIDE], align_corners=False
    )
    moved = F.grid_sample(images, grid, align_corners=False)
    noise = 0.1 * torch.randn(n, SIDE * SIDE, generator=generator)
    return moved.flatten(1) + noise


def _copies(labels: Tensor, rows: Tensor, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Return as many rows of each class, its originals equally often, or nearly."""
    chosen = []
    for label, count in enumerate(counts.tolist()):
        own = rows[labels[rows] == label]
        own = own[torch.randperm(len(own), generator=generator)]
        chosen.append(own.repeat(-(-count // len(own)))[:count])
    return torch.cat(chosen)
