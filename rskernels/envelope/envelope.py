"""The envelope constant M as state: what the log ratios seen so far make of it."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

from rskernels._torch.fast_path import refuse_in_graph
from rskernels.envelope.control import control_weights
from rskernels.envelope.decisions import EnvelopeDecisions
from rskernels.envelope.device import device_batch, stays_on_device
from rskernels.envelope.options import Options
from rskernels.envelope.policies import make_policy, parse_spec
from rskernels.envelope.report import EnvelopeViolation
from rskernels.envelope.rows import (
    ArrayLike,
    accepted_mask,
    as_tensor,
    check_ids,
    check_rows,
    not_ignored,
    row_memory,
)
from rskernels.envelope.thinning import thin
from rskernels.law.numbers import FLOAT64_ROUNDING
from rskernels.ops import SequenceAcceptance
from rskernels.ops.arguments import check_floating

Self = TypeVar("Self", bound="Envelope")


class Envelope(EnvelopeDecisions):
    """The envelope constant M of one or more groups, learnt from the log ratios seen so far.

    :meth:`accept`, :meth:`verify`, :meth:`bernoulli` and :meth:`accept_sequences` decide a batch by
    the M of earlier ones and learn from it afterwards: an M that has seen the rows it decides
    biases what is accepted. Or take :meth:`M` or :meth:`log_M`, and :meth:`update` with the ratios.
    The first batch is a pilot, of which nothing is accepted, unless :meth:`update` has been given
    one, or M is "fixed". A row whose ratio w = p/q
    is above the M in force is a violation; :meth:`report` says what violations cost.

    How M follows from the ratios is the policy; ``rskernels.envelope.policies`` has a class for
    each, with its law and source:

    ``"fixed"``: M is given. ``"max"``: the largest ratio. ``"leave_one_out"``: the largest of all
    other rows. ``"decayed"``: a maximum that halves with every half-life. ``"quantile"``: a
    quantile of the ratios. ``"budget"``: the M of an acceptance rate. ``"tail"``: an upper bound of
    the supremum, from a law fitted to the largest ratios.

    Envelopes of the same options merge in any order and grouping to the same maxima, counts and,
    without ``half_life``, histograms; sums agree to rounding. Every method may be called from
    several threads; a fork waits for them. No traced graph can hold one. A group takes 0.3 kB,
    ratios for its Pareto shape (8 bytes each, 2²⁰ / groups of them, none above 65,536 groups;
    ``tail``: 4,096) and, with a histogram, 0.6 kB for each quarter of a nat of log ratio that it
    has seen; ``budget`` twice that.

    Parameters
    ----------
    policy : {"max", "fixed", "leave_one_out", "decayed", "quantile", "budget", "tail"}
        How M follows from the ratios.
    level : float, optional
        In (0, 1]; required by, and only for, "quantile".
    groups : int
        Number of independent constants, such as one a class or prompt.
    half_life : float, optional
        At least 1. Required by "decayed". For "quantile" and "budget": a valid sample weighs half
        as much after this many further valid samples of its group; None forgets nothing.
    M : float, optional
        Positive and finite; required by, and only for, "fixed".
    rate : float, optional
        The acceptance wanted, in (0, 1]; required by, and only for, "budget".
    confidence : float, optional
        In (0, 1); for "quantile" with a level below 1 and no half-life.
    on_violation : {"cap", "raise", "thin", "control"}
        What violations lead to. "cap": they are reported, and no more. "raise": :meth:`update`
        takes the batch in and raises. "thin": as "cap", and :meth:`thin` says which earlier
        acceptances today's M would have kept. "control": :meth:`update` returns weights by
        which means over the accepted law are right for any M.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """

    def __init__(
        self,
        policy: str = "max",
        *,
        level: float | None = None,
        groups: int = 1,
        half_life: float | None = None,
        M: float | None = None,
        rate: float | None = None,
        confidence: float | None = None,
        on_violation: str = "cap",
    ) -> None:
        refuse_in_graph("an Envelope")
        numbers = {"level": level, "half_life": half_life, "M": M, "rate": rate}
        rule = make_policy(policy, **numbers, confidence=confidence)
        super().__init__(Options(rule, groups, on_violation))

    @classmethod
    def parse(
        cls: type[Self],
        text: str,
        *,
        groups: int = 1,
        half_life: float | None = None,
        on_violation: str = "cap",
    ) -> Self:
        """Make an envelope from a text such as ``"max"`` or ``"quantile:0.9"``.

        Others are ``leave_one_out``, ``tail``, ``fixed:M``, ``decayed:HALF_LIFE`` (or ``decayed``
        with `half_life`) and ``budget:RATE``.

        Raises
        ------
        ValueError
            If the text, or another argument, is not as above.
        """
        policy, parameter = parse_spec(text)
        if half_life is not None and "half_life" in parameter:
            raise ValueError(f"{text!r} already says its half_life, got half_life={half_life}")
        parameter = {**({} if half_life is None else {"half_life": half_life}), **parameter}
        return cls(policy, groups=groups, on_violation=on_violation, **parameter)

    def update(
        self,
        log_ratio: ArrayLike | SequenceAcceptance,
        groups: ArrayLike | None = None,
        *,
        accepted: ArrayLike | None = None,
        ignored: ArrayLike | None = None,
    ) -> Tensor | None:
        """Take in the log ratios ``log p - log q`` of a batch that has been decided.

        Parameters
        ----------
        log_ratio : Tensor, array or SequenceAcceptance
            Floating point, any shape, natural logarithms. NaN and +inf count as invalid, -inf is
            the valid ratio 0. Contiguous CPU tensors and arrays are read where they lie, with
            ``torch.get_num_threads()`` threads. Rows on a CUDA device stay there, and this does
            not wait for it unless ``on_violation`` is "raise": "max" and "fixed" keep counts, sums
            and largest ratios there, other policies a copy of the rows. The first call that needs
            them on the host waits. An envelope's updates belong on one stream. Of a
            ``SequenceAcceptance`` the ratios of its sequences, which were accepted, and which are
            empty and hence ignored; groups are those of the sequences ``[B]``.
        groups : Tensor or array, optional
            int64 or int32 of the same shape, ids in ``[0, groups)``. May be left out where there
            is one group.
        accepted : Tensor or array, optional
            bool of the same shape: which rows were accepted, for the report.
        ignored : Tensor or array, optional
            bool of the same shape: rows that are left out, such as padding. They are in no count.

        Returns
        -------
        Tensor or None
            With ``on_violation="control"`` the weight of each row if it was accepted,
            max(w, M)/M, float64 of the shape of ``log_ratio``; with min(1, w/M) as the chance of
            acceptance the weighted law is exact for any M (rejection control, Liu, Chen & Wong
            1998), up to w/M = exp(700), where weights end. NaN for invalid rows, and without M.

        Raises
        ------
        TypeError, ValueError
            If a dtype or shape is not as above, or ids are missing.
        IndexError
            If an id is outside ``[0, groups)``; then nothing has been taken in. For rows on a CUDA
            device the call that takes them in raises, once, and leaves those rows out.
        EnvelopeViolation
            With ``on_violation="raise"``, if a row was above the M that it met. The batch has been
            taken in: M now covers what the policy makes of it.
        """
        store, options = self._store, self._store.options
        if isinstance(log_ratio, SequenceAcceptance):
            if accepted is not None or ignored is not None:
                raise ValueError("a SequenceAcceptance says itself what was accepted and ignored")
            ignored, accepted = log_ratio.lengths == 0, log_ratio.mask
        ratios = log_ratio.log_ratio if isinstance(log_ratio, SequenceAcceptance) else log_ratio
        check_rows(ratios, groups, options.groups, accepted, ignored)
        with store.lock:
            if store.reducing is not None:
                store.wait_until_reduced()
            weights = None
            if options.on_violation == "control":
                weights = control_weights(*self._ratios_and_M(ratios, groups))
            if stays_on_device(ratios) and options.on_violation != "raise":
                store.add_on_device(device_batch(ratios, groups, accepted, ignored))
                return weights
            if ignored is not None:
                ratios, groups, accepted = not_ignored(ignored, ratios, groups, accepted)
            rows = row_memory(ratios, groups, options.groups)
            # Whatever raises does so before anything has been taken in.
            mask = None if accepted is None else accepted_mask(accepted)
            violations = store.add(rows.batch, mask)
        if violations and options.on_violation == "raise":
            raise EnvelopeViolation(
                f"{violations} of {math.prod(rows.shape)} rows had a ratio above the M that they "
                f"met, policy {options.policy.text}"
            )
        return weights

    def thin(
        self,
        log_ratio: Tensor,
        log_M: Tensor | float,
        groups: Tensor | None = None,
        *,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        row_offset: int = 0,
    ) -> Tensor:
        """Say which earlier acceptances to keep, as if today's M had decided them.

        A row accepted with probability min(1, w/M₀) is kept with min(1, w/M) / min(1, w/M₀), which
        is one or less where M has grown. Draws are those of stream 1, apart from the acceptances'.

        Parameters
        ----------
        log_ratio : Tensor
            Floating ``[...]``, of accepted rows.
        log_M : Tensor or float
            What each was accepted with; broadcasts to ``log_ratio``.
        groups : Tensor, optional
            int64 or int32 of the shape of ``log_ratio``.
        seed, generator, row_offset
            As in ``accept_mask``, with its errors.

        Returns
        -------
        Tensor
            bool ``[...]``.
        """
        check_floating("log_ratio", log_ratio)
        check_rows(log_ratio, groups, self.groups)
        # What log_M returns without rows is on the host.
        now = self.log_M(groups).to(log_ratio.device)
        return thin(log_ratio, log_M, now, seed=seed, generator=generator, row_offset=row_offset)

    def log_M(
        self,
        groups: Tensor | None = None,
        *,
        log_ratio: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return log M, float64; NaN for a group that has no M yet.

        A mask decided with NaN rejects the row and counts it as invalid. With "max" and "fixed" a
        CUDA device has its own M at hand; with the others a call first waits for rows held there.

        Parameters
        ----------
        groups : Tensor, optional
            int64 or int32, any shape, ids in ``[0, groups)``. On a CUDA device the M of other ids
            is NaN.
        log_ratio : Tensor, optional
            For "leave_one_out" alone: the batch about to be decided, of the shape of ``groups``.
            On a CUDA device it is copied to the host, which waits.
        device : torch.device or str, optional
            Of the result where neither is given; the CPU by default.

        Returns
        -------
        Tensor
            Of the shape of ``groups`` or ``log_ratio``, on its device. Without either ``[]`` for
            one group, else ``[groups]``.

        Raises
        ------
        TypeError, ValueError, IndexError
            If an argument has another dtype or shape, or holds an id outside ``[0, groups)``.
        NoFiniteM
            With "tail", if no group has an M and the ratios of one exclude a finite M, or do not
            exclude an infinite one. Where another group has an M, such a one has NaN.
        """
        if log_ratio is not None and self.policy != "leave_one_out":
            raise ValueError(f"log_ratio is for 'leave_one_out' only, got it with {self.policy!r}")
        if (rows_of := log_ratio if groups is None else groups) is None:
            values = self._store.log_M(device or "cpu")
            return values[0] if self._store.options.groups == 1 else values
        if device is not None:
            raise ValueError(f"device is for log_M without rows, got device={device!r} with them")
        if log_ratio is None and stays_on_device(groups):
            check_ids("groups", groups)
            inside = (groups >= 0) & (groups < self.groups)
            values = self._store.log_M(groups.device).take(torch.where(inside, groups, 0).long())
            return torch.where(inside, values, math.nan)
        refuse_in_graph("an Envelope")
        rows = row_memory(log_ratio, groups, self.groups)
        values = self._store.log_M_of(rows.batch)
        return values.reshape(rows_of.shape).to(rows_of.device)

    def _ratios_and_M(
        self, log_ratio: ArrayLike, groups: ArrayLike | None
    ) -> tuple[Tensor, Tensor]:
        """Return rows that are about to be taken in as float64, and the log M that they meet."""
        ratios = as_tensor(log_ratio).double()
        ids = None if groups is None else as_tensor(groups).to(ratios.device)
        if self.policy == "leave_one_out":
            return ratios, self.log_M(ids, log_ratio=ratios)
        return ratios, self.known_log_M(ids, device=ratios.device if ids is None else None)

    def M(
        self, groups: Tensor | None = None, *, device: torch.device | str | None = None
    ) -> Tensor:
        """Return M = exp(log M), rounded up so that ``M.log() >= log_M``; see :meth:`log_M`.

        +inf where log M is above 709.78: decide with :meth:`log_M` and ``log_space=True`` there.
        """
        log_M = self.log_M(groups, device=device)
        M = log_M.exp() * (1.0 + FLOAT64_ROUNDING * (1.0 + log_M.abs()))
        M = torch.nextafter(M, torch.full_like(M, math.inf))
        return torch.where(log_M == -math.inf, 0.0, M)
