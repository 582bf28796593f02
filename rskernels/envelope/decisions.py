"""Batches decided by the M of earlier ones, and learnt from afterwards."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rskernels import _core
from rskernels.envelope.density import Density
from rskernels.envelope.rows import ArrayLike
from rskernels.envelope.state import EnvelopeState
from rskernels.ops import (
    Acceptance,
    LinearLogits,
    SequenceAcceptance,
    accept,
    accept_sequences,
    bernoulli,
    verify,
)
from rskernels.ops.sequences import Tokens

Seed = int | Tensor | None


class EnvelopeDecisions(EnvelopeState):
    """The methods of an envelope that decide a batch and then learn from it."""

    @abstractmethod
    def log_M(
        self,
        groups: Tensor | None = None,
        *,
        log_ratio: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return log M."""

    @abstractmethod
    def update(
        self,
        log_ratio: ArrayLike | SequenceAcceptance,
        groups: ArrayLike | None = None,
        *,
        accepted: ArrayLike | None = None,
        ignored: ArrayLike | None = None,
    ) -> Tensor | None:
        """Take in log ratios."""

    def known_log_M(
        self, groups: Tensor | None = None, *, device: torch.device | str | None = None
    ) -> Tensor:
        """Return log M as :meth:`log_M` does, but NaN where that would raise ``NoFiniteM``."""
        try:
            return self.log_M(groups, device=device)
        except _core.NoFiniteM:
            shape = torch.Size([] if self.groups == 1 else [self.groups])
            if groups is not None:
                shape, device = groups.shape, groups.device
            return torch.full(shape, math.nan, dtype=torch.float64, device=device)

    def accept(
        self,
        logits: Tensor | LinearLogits,
        p_hat: Tensor | float,
        *,
        targets: Tensor | None = None,
        groups: Tensor | None = None,
        temperature: Tensor | float = 1.0,
        log_space: bool = False,
        seed: Seed = None,
        generator: torch.Generator | None = None,
        row_offset: int = 0,
        ids: Tensor | None = None,
        ignore_index: int = -100,
    ) -> Acceptance:
        """Decide rows by the M of earlier batches, as :func:`accept`, then learn from these.

        Where a group has no M yet, M counts as infinite: its rows are a pilot, from which M is
        learnt, and none of them is accepted. A ratio of 0 alone makes no M either; nor do, with
        "tail", ratios that allow no finite one, where :meth:`log_M` may raise. To accept from
        the first batch on, :meth:`update` before with log ratios that are not decided, or take the
        policy "fixed". The estimate of a batch is never used on that batch, by which the accepted
        law would be wrong; "leave_one_out" takes that of all other rows, at the price that its
        documentation says, and decides in a second pass: over the ratios, or, without targets, over
        the logits.

        Several threads may call it. Each decides by what is known as it begins.

        Parameters
        ----------
        logits, p_hat, targets, temperature, log_space, seed, generator, row_offset
            As in :func:`accept`. M may be larger than any float64: for that, the logarithm of
            ``p_hat`` is taken first, in float64, unless ``log_space`` says that it is one, or
            ``targets`` are left out and one M on the CPU is a float64.
        ids, ignore_index
            As in :func:`accept`.
        groups : Tensor, optional
            int64 or int32 of the decisions' shape, ids in ``[0, groups)``, on the logits' device.
            May be left out where there is one group.

        Returns
        -------
        Acceptance
            As of :func:`accept`. Rows of a pilot are in no count of it but the invalid ones.

        Raises
        ------
        TypeError, ValueError, IndexError, EnvelopeViolation
            As :func:`accept`, :meth:`log_M` and :meth:`update`. With ``on_violation="raise"`` the
            batch has been taken in when it raises. ValueError with ``on_violation="control"``,
            whose weights :meth:`update` returns: decide with :meth:`log_M` there.
        """
        density = Density("p_hat", p_hat, log_space)
        return self._decide_rows(
            accept, logits, density, groups, ignore_index, targets, temperature,
            seed=seed, generator=generator, row_offset=row_offset, ids=ids,
        )  # fmt: skip

    def verify(
        self,
        logits: Tensor | LinearLogits,
        q_hat: Tensor | float,
        *,
        targets: Tensor | None = None,
        groups: Tensor | None = None,
        temperature: Tensor | float = 1.0,
        log_space: bool = False,
        seed: Seed = None,
        generator: torch.Generator | None = None,
        row_offset: int = 0,
        ids: Tensor | None = None,
        ignore_index: int = -100,
    ) -> Acceptance:
        """Decide rows by the M of earlier batches, as :func:`verify`, then learn from these.

        All else is as in :meth:`accept`.
        """
        density = Density("q_hat", q_hat, log_space)
        return self._decide_rows(
            verify, logits, density, groups, ignore_index, targets, temperature,
            seed=seed, generator=generator, row_offset=row_offset, ids=ids,
        )  # fmt: skip

    def bernoulli(
        self,
        log_ratio: Tensor,
        *,
        mask: Tensor | None = None,
        groups: Tensor | None = None,
        seed: Seed = None,
        generator: torch.Generator | None = None,
        row_offset: int = 0,
        ids: Tensor | None = None,
    ) -> Acceptance:
        """Decide ratios by the M of earlier batches, as :func:`bernoulli`, then learn from these.

        ``log_ratio``, ``mask`` and ``ids`` are those of :func:`bernoulli`; what is not in the mask
        is not learnt from. All else is as in :meth:`accept`, with ``groups`` of the shape of
        ``log_ratio``.
        """
        self._refuse_control()
        others = None
        if self.policy == "leave_one_out":
            # What is not valid becomes NaN.
            others = bernoulli(log_ratio, seed=0, mask=mask).log_ratio
        log_M = self._M_for(others, groups, _device_of(log_ratio), _shape_of(log_ratio))
        seen = bernoulli(
            log_ratio, log_M, log_space=True, mask=mask,
            seed=seed, generator=generator, row_offset=row_offset, ids=ids,
        )  # fmt: skip
        ignored = None if mask is None else ~mask
        self.update(seen.log_ratio, groups, accepted=seen.mask, ignored=ignored)
        return seen

    def accept_sequences(
        self,
        log_ratio: Tokens,
        *,
        mask: Tokens | None = None,
        cu_seqlens: Tensor | None = None,
        statistic: str = "sum",
        groups: Tensor | None = None,
        seed: Seed = None,
        generator: torch.Generator | None = None,
        row_offset: int = 0,
        ids: Tensor | None = None,
    ) -> SequenceAcceptance:
        """Decide sequences by the M of earlier batches, then learn from these.

        ``log_ratio``, ``mask``, ``cu_seqlens``, ``statistic`` and ``ids`` are those of
        :func:`accept_sequences`; M is of that statistic, so keep an envelope for each. All else is
        as in :meth:`accept`, with ``groups`` ``[B]``, such as the prompt of each sequence.
        """
        self._refuse_control()
        layout: Any = {"mask": mask, "cu_seqlens": cu_seqlens, "statistic": statistic}
        others = None
        if self.policy == "leave_one_out":
            # What is decided here is not used; a fixed seed leaves the generators as they were.
            others = accept_sequences(log_ratio, seed=0, **layout).log_ratio
        shape = _shape_of(log_ratio)[:1] if cu_seqlens is None else None
        log_M = self._M_for(others, groups, _device_of(log_ratio), shape)
        seen = accept_sequences(
            log_ratio, log_M, log_space=True, **layout,
            seed=seed, generator=generator, row_offset=row_offset, ids=ids,
        )  # fmt: skip
        self.update(seen, groups)
        return seen

    def _decide_rows(
        self,
        decide: Callable[..., Acceptance],
        logits: Tensor | LinearLogits,
        density: Density,
        groups: Tensor | None,
        ignore_index: int,
        targets: Tensor | None,
        temperature: Tensor | float,
        **draw: Any,
    ) -> Acceptance:
        """Decide rows by ``accept`` or ``verify``, then learn from them."""
        self._refuse_control()
        if not isinstance(logits, (Tensor, LinearLogits)):
            raise TypeError(f"logits must be a Tensor or LinearLogits, got {type(logits).__name__}")
        law: dict[str, Any] = {
            "targets": targets,
            "temperature": temperature,
            "ignore_index": ignore_index,
        }
        ignored = targets == ignore_index if isinstance(targets, Tensor) else None
        if self.policy == "leave_one_out":
            # What is decided here is not used; a fixed seed leaves the generators as they were.
            log_density = density.log()
            seen = decide(logits, log_density, math.inf, log_space=True, seed=0, **law)
            log_M = self._M_for(seen.log_ratio, groups, logits.device, seen.log_ratio.shape)
            if targets is None:
                # Only the form that read the logits knows an entry's row and column.
                seen = decide(logits, log_density, log_M, log_space=True, **law, **draw)
            else:
                mask = None if ignored is None else ~ignored
                second = bernoulli(seen.log_ratio, log_M, log_space=True, mask=mask, **draw)
                seen = second._replace(log_prob=seen.log_prob)
        else:
            shape = targets.shape if isinstance(targets, Tensor) else logits.shape
            log_M = self._M_for(None, groups, logits.device, shape)
            values, M, log_space = density.beside(log_M, is_dense=targets is None)
            seen = decide(logits, values, M, log_space=log_space, **law, **draw)
        self.update(seen.log_ratio, groups, accepted=seen.mask, ignored=ignored)
        return seen

    def _M_for(
        self,
        log_ratio: Tensor | None,
        groups: Tensor | None,
        device: torch.device | None,
        shape: torch.Size | None,
    ) -> Tensor:
        """Return the log M by which rows are decided; +inf, which accepts none, where it has none.

        ``log_ratio`` is of the rows, for "leave_one_out" alone; ``shape`` is the decisions', where
        it is known. Ids outside ``[0, groups)`` are those of rows that are ignored: `update`
        refuses others.
        """
        if groups is not None:
            if shape is not None and groups.shape != shape:
                raise ValueError(
                    f"groups must have the decisions' shape {list(shape)}, got {list(groups.shape)}"
                )
            inside = (groups >= 0) & (groups < self.groups)
            groups = torch.where(inside, groups, 0)
        if self.policy == "leave_one_out":
            log_M = self.log_M(groups, log_ratio=log_ratio)
        elif groups is not None:
            log_M = self.known_log_M(groups)
        elif self.groups > 1:
            raise ValueError(f"an envelope of {self.groups} groups needs the group of every row")
        else:
            log_M = self.known_log_M(device=device)
        # An M of 0, of ratios that are all 0, would make every row invalid: nothing would be
        # learnt from then on.
        return torch.where(log_M > -math.inf, log_M, math.inf)

    def _refuse_control(self) -> None:
        if self.on_violation == "control":
            raise ValueError(
                "on_violation='control' gives weights, for which a decision has no place: decide "
                "with log_M(), and update() returns them"
            )


def _shape_of(log_ratio: Tokens) -> torch.Size:
    if isinstance(log_ratio, (list, tuple)):
        return torch.Size([len(log_ratio)])
    return log_ratio.shape if isinstance(log_ratio, Tensor) else torch.Size()


def _device_of(log_ratio: Tokens) -> torch.device | None:
    given = log_ratio if isinstance(log_ratio, (list, tuple)) else [log_ratio]
    first = next(iter(given), None)
    return first.device if isinstance(first, Tensor) else None
