"""Rows on a GPU: what they amount to is kept there until it is asked for; adding never waits."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple, TypeGuard

import torch
from numpy.typing import NDArray
from torch import Tensor

from rskernels import _core
from rskernels.envelope.options import Options
from rskernels.envelope.rows import as_tensor, row_memory
from rskernels.envelope.units import COUNTS, LOG_LIMIT, SUMS, exponent_of, unit_factors

# Policies whose M follows from the counts and sums, so that it is at hand on the device.
RUNNING = ("max", "fixed")
# Rows that wait for the tail before all but the largest of them are let go.
MOST_WAITING = 1 << 20


def stays_on_device(rows: object) -> TypeGuard[Tensor]:
    """Say whether rows stay on their device until they are asked for."""
    return isinstance(rows, Tensor) and rows.is_cuda


class DeviceBatch(NamedTuple):
    """The batch of an update, on its device."""

    log_ratio: Tensor  # floating [N]
    ids: Tensor | None  # int64 [N]; None: all of group 0
    accepted: Tensor | None  # bool [N]
    ignored: Tensor | None = None  # bool [N]


def device_batch(log_ratio: Tensor, groups: Any, accepted: Any, ignored: Any) -> DeviceBatch:
    """Return rows that `check_rows` let pass as flat tensors of the device of `log_ratio`."""

    def flat(values: Any) -> Tensor | None:
        return None if values is None else as_tensor(values).to(log_ratio.device).reshape(-1)

    ids = flat(groups)
    return DeviceBatch(
        log_ratio.detach().reshape(-1),
        None if ids is None else ids.long(),
        flat(accepted),
        flat(ignored),
    )


class Waiting(ABC):
    """Rows on a device that the C++ core has not taken in yet."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def is_on(self, device: torch.device | str) -> bool:
        """Say whether the rows are there; "cuda" is the current one."""
        return self.device == torch.empty(0, device=device).device

    @abstractmethod
    def update(self, batch: DeviceBatch) -> None:
        """Add rows, without waiting for the device."""

    @abstractmethod
    def take_in(self, core: _core.Envelope) -> int:
        """Move everything to the core; return how many rows were of no group, and left out."""


class Queue(Waiting):
    """Rows as they came, for the policies whose M takes a look at every ratio."""

    def __init__(self, groups: int, device: torch.device) -> None:
        super().__init__(device)
        self._groups = groups
        self._batches: list[DeviceBatch] = []

    def update(self, batch: DeviceBatch) -> None:
        """Add copies, since the caller may write to its tensors again."""
        copies = [None if values is None else values.clone() for values in batch]
        self._batches.append(DeviceBatch(*copies))  # type: ignore[arg-type]

    def take_in(self, core: _core.Envelope) -> int:
        """Show the core the batches in their order, as if they had come there."""
        left_out = 0
        batches, self._batches = self._batches, []
        for batch in batches:
            log_ratio, ids, accepted, ignored = (x if x is None else x.cpu() for x in batch)
            kept = None if ignored is None else ~ignored
            if ids is not None:
                inside = (ids >= 0) & (ids < self._groups)
                outside = ~inside if kept is None else kept & ~inside
                left_out += int(outside.sum())
                kept = inside if kept is None else kept & inside
            if kept is not None:
                log_ratio, ids, accepted = (
                    x if x is None else x[kept] for x in (log_ratio, ids, accepted)
                )
            rows = row_memory(log_ratio, ids, self._groups)
            core.update(rows.batch, torch.get_num_threads())
            if accepted is not None:
                core.observe(accepted.numpy(), rows.batch)
        return left_out


class DeviceTally(Waiting):
    """Counts, sums and largest ratios of the groups as tensors, for the policies of `RUNNING`.

    Every column has two entries more than there are groups: one takes the rows of no group, since
    an id cannot be checked without waiting, and the last those that are ignored. Sums are in the
    units of the C++ core.

    Parameters
    ----------
    options : Options
        Of the envelope.
    device : torch.device
        Where the rows will be.
    log_M : Tensor
        float64 ``[groups]``, of the rows so far; NaN where there is none.
    empty : _core.Envelope
        Without rows, of these options; the rows leave through it.
    """

    def __init__(
        self, options: Options, device: torch.device, log_M: Tensor, empty: _core.Envelope
    ) -> None:
        super().__init__(device)
        self._empty = empty
        self._learns = options.policy.name == "max"
        self._groups = options.groups

        def column(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.full((options.groups + 2,), value, dtype=dtype, device=device)

        self._counts = {name: column(0, torch.int64) for name in COUNTS}
        self._sums = {name: column(0.0) for name in SUMS}
        self._top = column(-math.inf)
        nowhere = log_M.new_full((2,), math.nan)
        self._log_M = torch.cat((log_M, nowhere)).to(device, non_blocking=True)
        self._tails = Tails(options.groups, *empty.tail_capacities(), device)

    @property
    def log_M(self) -> Tensor:
        """Log M with all rows so far, float64 ``[groups]``."""
        return self._log_M[:-2]

    def update(self, batch: DeviceBatch) -> None:
        """Add rows to the tensors, and to M where the policy learns."""
        log_ratio, ids, accepted, ignored = batch
        if ids is not None:
            ids = torch.where((ids >= 0) & (ids < self._groups), ids, self._groups)
        if ignored is not None:
            ids = torch.where(ignored, self._groups + 1, 0 if ids is None else ids)
        log_ratio = log_ratio.double()
        valid = log_ratio < math.inf
        log_M = _take(self._log_M, ids)
        decided = valid & (log_M > -math.inf)
        # M = 0, which no mask takes, is met by no row and violated by none.
        above = decided & (log_ratio > log_M)
        every = torch.ones_like(valid)
        counts = {"seen": every, "invalid": ~valid, "decided": decided, "violations": above}
        if accepted is not None:
            counts |= {"observed": every, "accepted": accepted}
        for name, is_counted in counts.items():
            _add(self._counts[name], is_counted.long(), ids)

        ratio = torch.where(valid, log_ratio, -math.inf)
        unit = _take(self._raise(ratio, ids) * math.log(2.0), ids)
        in_range = torch.where(ratio > -math.inf, ratio.clamp(-LOG_LIMIT, LOG_LIMIT), ratio)
        # No weight is above a unit, but for rounding.
        w = (in_range - unit).clamp(max=0.0).exp()
        M = (log_M - unit).clamp(max=0.0).exp()
        sums = {
            "weight": w,
            "square": w * w,
            "decided_weight": torch.where(decided, w, 0.0),
            "excess": torch.where(above, (w - M).clamp(min=0.0), 0.0),
            "expected": torch.where(decided, (ratio - log_M).clamp(max=0.0).exp(), 0.0),
        }
        for name, values in sums.items():
            _add(self._sums[name], values, ids)
        if self._learns:
            has_valid = self._counts["seen"] > self._counts["invalid"]
            # fmax takes the other of a number and NaN.
            self._log_M.copy_(torch.fmax(self._log_M, torch.where(has_valid, self._top, math.nan)))
        self._tails.add(ratio, ids)

    def take_in(self, core: _core.Envelope) -> int:
        """Merge the tensors into the core."""
        columns = {
            name: values[:-2].cpu().numpy() for name, values in (self._counts | self._sums).items()
        }
        columns["max_log_ratio"] = self._top[:-2].cpu().numpy()
        self._empty.restore(columns | self._tails.columns())
        core.merge(self._empty)
        return int(self._counts["seen"][-2])

    def _raise(self, ratio: Tensor, ids: Tensor | None) -> Tensor:
        """Take the ratios into the maxima, bring the sums to their units; return the exponents."""
        before = exponent_of(self._top)
        if ids is not None:
            self._top.scatter_reduce_(0, ids, ratio, "amax")
        elif len(ratio) > 0:
            self._top.narrow(0, 0, 1).clamp_(min=ratio.amax())
        exponent = exponent_of(self._top)
        for name, factor in unit_factors(before, exponent).items():
            self._sums[name] *= factor
        return exponent


class Tails:
    """The largest ratios of each group, and of all; -inf where there are not as many."""

    def __init__(self, groups: int, overall: int, capacity: int, device: torch.device) -> None:
        self._groups, self._overall, self._capacity = groups, overall, capacity
        self._largest = torch.full((overall,), -math.inf, dtype=torch.float64, device=device)
        self._of_group = self._largest.new_full((groups, capacity), -math.inf)
        self._rows: list[tuple[Tensor, Tensor | None]] = []
        self._waiting = 0

    def add(self, ratio: Tensor, ids: Tensor | None) -> None:
        """Take in ratios, -inf where invalid, whose ids may be one too many."""
        self._rows.append((ratio, ids))
        self._waiting += len(ratio)
        if self._waiting > MOST_WAITING:
            self._keep_largest()

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return them as the state of the core has them."""
        self._keep_largest()
        largest, of_group = self._largest.cpu(), self._of_group.cpu()
        is_ratio = of_group > -math.inf
        ends = is_ratio.sum(1).cumsum(0)[: self._groups if self._groups > 1 else 0]
        return {
            "tail": largest[largest > -math.inf].numpy(),
            "group_tail": of_group[is_ratio].numpy(),
            "group_tail_start": torch.cat((ends.new_zeros(1), ends)).numpy(),
        }

    def _keep_largest(self) -> None:
        rows, self._rows, self._waiting = self._rows, [], 0
        for ratio, ids in rows:
            inside = ratio if ids is None else torch.where(ids < self._groups, ratio, -math.inf)
            self._largest = torch.cat((self._largest, inside)).topk(self._overall).values
        grouped = [(ratio, ids) for ratio, ids in rows if ids is not None]
        if self._capacity == 0 or not grouped:
            return
        held = torch.arange(self._groups, device=self._of_group.device)
        ratio = torch.cat([self._of_group.view(-1), *(ratio for ratio, _ in grouped)])
        ids = torch.cat([held.repeat_interleave(self._capacity), *(ids for _, ids in grouped)])
        order = ratio.argsort(descending=True)
        order = order.take(ids.take(order).argsort(stable=True))
        ratio, ids = ratio.take(order), ids.take(order)
        first = torch.searchsorted(ids, torch.arange(self._groups + 2, device=ids.device))
        rank = torch.arange(len(ids), device=ids.device) - first.take(ids)
        size = self._groups * self._capacity
        # What is not kept goes to one place past the end.
        kept = (rank < self._capacity) & (ids < self._groups)
        place = torch.where(kept, ids * self._capacity + rank, size)
        largest = ratio.new_full((size + 1,), -math.inf).scatter_(0, place, ratio)
        self._of_group = largest[:-1].view(self._groups, self._capacity)


def _take(column: Tensor, ids: Tensor | None) -> Tensor:
    """Return the entry of each row's group."""
    return column.narrow(0, 0, 1) if ids is None else column.take(ids)


def _add(column: Tensor, values: Tensor, ids: Tensor | None) -> None:
    """Add the values of rows to the entries of their groups."""
    if ids is None:
        column.narrow(0, 0, 1).add_(values.sum())
    else:
        column.index_add_(0, ids, values)
