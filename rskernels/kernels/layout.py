"""How tensors with leading dimensions become rows with at most two strides, without a copy."""

from __future__ import annotations

from typing import NamedTuple

import torch

ORDER_BLOCK = 1024  # columns that an order of the caller's moves together


class RowLayout(NamedTuple):
    """Row ``n`` of a tensor starts ``n // inner * outer + n % inner * step`` elements in."""

    tensors: tuple[torch.Tensor, ...]  # what is kept alive and addressed
    length: int
    inner: int
    outer_strides: tuple[int, ...]
    inner_strides: tuple[int, ...]


class Scalar(NamedTuple):
    """A density or M of every row, or of every entry: a tensor with its strides, or a number."""

    tensor: torch.Tensor | None
    strides: tuple[int, ...]
    """Of rows, the step from one to the next; of entries, outer, inner and of the columns."""
    number: float


def as_rows(*tensors: torch.Tensor) -> RowLayout:
    """View tensors of one shape ``[..., V]`` as rows, all with the same two leading dimensions.

    Leading dimensions merge where every tensor allows it. A layout that needs more than two
    strides is copied.
    """
    shape = tensors[0].shape[:-1]
    if shape.numel() == 0:
        return RowLayout(tensors, 0, 1, (0,) * len(tensors), (0,) * len(tensors))
    if len(shape) == 1 and shape[0] > 1:
        # What the loop below gives as well, but on few rows it is felt.
        N, steps_of_rows = shape[0], tuple(tensor.stride(0) for tensor in tensors)
        return RowLayout(tensors, N, N, (0,) * len(tensors), steps_of_rows)
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
    length, inner = sizes[0] * sizes[1], max(sizes[1], 1)
    return RowLayout(tensors, length, inner, tuple(steps[0]), tuple(steps[1]))


def column_stride(logits: torch.Tensor) -> int:
    """Return the step from one column to the next; that of a single column may be any."""
    return logits.stride(-1) if logits.shape[-1] > 1 else 1


def row_scalar(value: torch.Tensor | float, shape: torch.Size) -> Scalar:
    """Lay out a density or M that broadcasts to ``shape``: one element for every row, or for all.

    One element keeps step 0; anything else is laid out row by row.
    """
    if not isinstance(value, torch.Tensor):
        return Scalar(None, (0,), value)
    if value.shape == shape:
        return Scalar(value.contiguous(), (1,), 0.0)
    if value.numel() == 1:
        return Scalar(value, (0,), 0.0)
    return Scalar(value.expand(shape).contiguous(), (1,), 0.0)


def entry_scalars(
    logits: torch.Tensor, *values: torch.Tensor | float
) -> tuple[RowLayout, tuple[Scalar, ...]]:
    """Lay out logits and densities or Ms of their shape as rows, so that one number serves all."""
    layout = as_rows(logits, *(value for value in values if isinstance(value, torch.Tensor)))
    scalars, at = [], 0
    for value in values:
        if isinstance(value, torch.Tensor):
            at += 1
            tensor = layout.tensors[at]
            strides = (layout.outer_strides[at], layout.inner_strides[at], tensor.stride(-1))
            scalars.append(Scalar(tensor, strides, 0.0))
        else:
            scalars.append(Scalar(None, (0, 0, 0), value))
    return layout, tuple(scalars)


def wide_dtype(values: torch.Tensor) -> torch.dtype:
    """Return float64 for float64, else float32: what log-probabilities are returned in."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32
