"""What the gradient loop trains on: a model, data, densities, and an order of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rskernels.rsft.data.digest import digest
from rskernels.rsft.data.resample import Resampler
from rskernels.rsft.data.samples import Samples
from rskernels.rsft.errors import DataError


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
    digest : str
        Of the data, by which a run that is resumed knows them again; that of all the tensors here
        if empty.
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
    digest: str = ""

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

    def identity(self) -> str:
        """Return the digest of the data."""
        more = (self.counts, self.log_density, self.targets, self.pilot, self.logits, self.modality)
        return self.digest or digest((*self.pool, *self.test, *more))

    def check(self) -> None:
        """Raise DataError if lengths differ, a label has no class, or there is one class alone."""
        rows = len(self.pool.labels)
        for name in ("log_density", "targets", "logits", "modality"):
            values: Tensor | None = getattr(self, name)
            if values is not None and len(values) != rows:
                raise DataError(f"{name} has {len(values)} rows, the pool {rows}")
        for name, samples in (("pool", self.pool), ("test", self.test)):
            labels = samples.labels
            if len(samples.inputs) != len(labels) or not len(labels):
                raise DataError(
                    f"{name} has {len(samples.inputs)} inputs and {len(labels)} labels: needed is "
                    "one label for each of at least one input"
                )
            lowest, highest = int(labels.min()), int(labels.max())
            if not 0 <= lowest <= highest < len(self.counts):
                raise DataError(
                    f"{name} has labels {lowest} to {highest}, the counts are of "
                    f"{len(self.counts)} classes"
                )
            if lowest == highest:
                raise DataError(
                    f"all {len(labels)} rows of {name} are of class {lowest}: at least two classes "
                    "are needed"
                )


def shuffled(rows: int) -> Order:
    """Return the order in which every row comes once."""
    return lambda epoch, generator: Epoch(torch.randperm(rows, generator=generator), {})


def resampled(order: Order, labels: Tensor, resample: Resampler) -> Order:
    """Return an order of which a baseline repeats, or leaves out, rows."""

    def resampled_order(number: int, generator: torch.Generator) -> Epoch:
        epoch = order(number, generator)
        return epoch._replace(rows=epoch.rows[resample(labels[epoch.rows], generator)])

    return resampled_order
