"""How tensors with leading dimensions become rows with at most two strides, without a copy."""

from __future__ import annotations

from typing import NamedTuple

import torch

ORDER_BLOCK = 1024  # columns that an order of the caller's moves together


class Rows(NamedTuple):
    """Row ``n`` of a tensor starts ``n // inner * outer + n % inner * step`` elements in."""

    tensors: tuple[torch.Tensor, ...]  # what is kept alive and addressed
    length: int
    inner: int
    outer_strides: tuple[int, ...]
    inner_strides: tuple[int, ...]


def as_rows(*tensors: torch.Tensor) -> Rows:
    """View tensors of one shape ``[..., V]`` as rows, all with the same two leading dimensions.

    Leading dimensions merge where every tensor allows it. A layout that needs more than two
    strides is copied.
    """
    shape = tensors[0].shape[:-1]
    if shape.numel() == 0:
        return Rows(tensors, 0, 1, (0,) * len(tensors), (0,) * len(tensors))
    strides = [tensor.stride() for tensor in tensors]
    sizes: list[int] = []
    steps: list[list[int]] = []
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        step = [stride[axis] for stride in strides]
        if sizes and all(before == size * now for before, now in zip(steps[-1], step, strict=True)):
            sizes[-1] *= size
            steps[-1] = step
        else:
            sizes.append(size)
            steps.append(step)
    if len(sizes) > 2:
        return as_rows(*(tensor.contiguous() for tensor in tensors))
    while len(sizes) < 2:
        sizes.insert(0, 1)
        steps.insert(0, [0] * len(tensors))
    return Rows(tensors, sizes[0] * sizes[1], max(sizes[1], 1), tuple(steps[0]), tuple(steps[1]))


def per_row(value: torch.Tensor, shape: torch.Size) -> tuple[torch.Tensor, int]:
    """Return a tensor that broadcasts to ``shape`` with the step from one row to the next.

    One element keeps step 0; anything else is laid out row by row.
    """
    if value.shape == shape:
        return value.contiguous(), 1
    if value.numel() == 1:
        return value, 0
    return value.expand(shape).contiguous(), 1


def wide_dtype(values: torch.Tensor) -> torch.dtype:
    """Return float64 for float64, else float32: what log-probabilities are returned in."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32
