"""What the gradient loop trains on: a model, data, densities, and an order of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rskernels.rsft.data.resample import Resampler
from rskernels.rsft.data.samples import Samples


class Epoch(NamedTuple):
    """The rows of an epoch.

    Attributes
    ----------
    rows : Tensor
        int64 ``[n]``, in the order in which they come.
    measures : dict
        What the epoch's record says of how they came about.
    log_density : Tensor, optional
        float32 ``[rows of the pool]``, where it moves; None is that of the task.
    """

    rows: Tensor
    measures: dict[str, float]
    log_density: Tensor | None = None


# Number of the epoch, from 0, and generator.
Order = Callable[[int, torch.Generator], Epoch]


class Task(NamedTuple):
    """What the loop trains on.

    Attributes
    ----------
    pool, test : Samples
        To train on and to be judged on.
    counts : Tensor
        int64 ``[C]``, rows of each class in the pool.
    log_density : Tensor
        float32 ``[rows of the pool]``, log p̂: what a rule weighs the model's probability against.
    model : Module
        Inputs to logits ``[N, C]``. Its parameters that require no grad stay as they are.
    targets : Tensor
        int64 ``[rows of the pool]``, the column of the logits that each row is judged by.
    order : callable
        The number of an epoch and a generator to its rows.
    pilot : Tensor
        int64 ``[n]``, rows as the first epoch has them, from which M is first learnt.
    logits : Tensor, optional
        ``[rows of the pool, K]``, what a rule reads of each row; None are those of the model.
    before : dict, optional
        What the summary says of what came before the loop.
    modality : Tensor, optional
        int64 ``[rows of the pool]``, places in `modalities`; None where there is one.
    modalities : tuple of str
        Their names.
    measure : callable
        What an epoch's record says besides, of the model as it is then.
    """

    pool: Samples
    test: Samples
    counts: Tensor
    log_density: Tensor
    model: nn.Module
    targets: Tensor
    order: Order
    pilot: Tensor
    logits: Tensor | None = None
    before: Mapping[str, float] = {}
    modality: Tensor | None = None
    modalities: tuple[str, ...] = ()
    measure: Callable[[nn.Module], dict[str, float]] = lambda model: {}

    @classmethod
    def from_samples(
        cls, pool: Samples, test: Samples, model: nn.Module, log_density: Tensor, **options: Any
    ) -> Task:
        """Return a task in which every row of the pool comes once an epoch.

        Parameters
        ----------
        pool, test, model, log_density
            As above.
        **options
            The other attributes, where they are not the usual ones: counts and targets those of the
            labels, the order shuffled, the pilot all rows.
        """
        rows = len(pool.labels)
        usual: dict[str, Any] = {
            "counts": pool.labels.bincount(minlength=int(test.labels.max()) + 1),
            "targets": pool.labels,
            "order": shuffled(rows),
            "pilot": torch.arange(rows),
        }
        return cls(pool=pool, test=test, model=model, log_density=log_density, **usual | options)


def shuffled(rows: int) -> Order:
    """Return the order in which every row comes once."""
    return lambda epoch, generator: Epoch(torch.randperm(rows, generator=generator), {})


def resampled(order: Order, labels: Tensor, resample: Resampler) -> Order:
    """Return an order of which a baseline repeats, or leaves out, rows."""

    def resampled_order(number: int, generator: torch.Generator) -> Epoch:
        epoch = order(number, generator)
        return epoch._replace(rows=epoch.rows[resample(labels[epoch.rows], generator)])

    return resampled_order
