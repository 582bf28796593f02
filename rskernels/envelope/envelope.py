"""The envelope constant M as state: what the log ratios seen so far make of it."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

from rskernels import _core
from rskernels.envelope.control import control_weights, thin
from rskernels.envelope.device import device_rows, stays_there
from rskernels.envelope.estimate import check_ids, estimate_M
from rskernels.envelope.policies import check_options, parse_spec
from rskernels.envelope.report import (
    EnvelopeCounts,
    EnvelopeReport,
    EnvelopeViolation,
    make_report,
)
from rskernels.envelope.rows import Rows, accepted_mask, check_rows, row_memory
from rskernels.envelope.store import StoredState, make_core

__all__ = [
    "Envelope",
    "EnvelopeCounts",
    "EnvelopeReport",
    "EnvelopeViolation",
    "NoFiniteM",
    "estimate_M",
]

NoFiniteM = _core.NoFiniteM

Self = TypeVar("Self", bound="Envelope")


class Envelope(StoredState):
    """The envelope constant M of one or more groups, learnt from the log ratios seen so far.

    Decide a batch with :meth:`M` or :meth:`log_M`, and :meth:`update` with its ratios afterwards:
    an M that has seen the rows it decides biases what is accepted. For the first batch take M from
    :func:`estimate_M`, or update with rows that are not decided, a pilot. A row whose ratio w = p/q
    is above the M in force is a violation; :meth:`report` says what violations cost.

    ``fixed``
        M is given. Nothing is learnt; violations and bias are reported.
    ``max``
        M is the largest ratio seen (empirical supremum, Caffo, Booth & Davison 2002). Where the
        true supremum is finite M rises to it, and the accepted law tends to the target; a fresh
        ratio of the same continuous law exceeds the largest of n with probability 1 / (n + 1).
    ``leave_one_out``
        For each row the largest of the history and of the *other* rows of its batch and group,
        from ``log_M(groups, log_ratio=...)``: no row decides its own M, and none need wait for a
        pilot but the only row of a first batch. A batch's largest ratio is a violation where it
        is above the history.
    ``decayed``
        A maximum that forgets: M halves with every ``half_life`` valid samples and is never below
        the newest ratio. A ratio at age t exceeds M by a factor of at most 2^(t / half_life); an
        outlier of 2^k times the others is forgotten after k half-lives.
    ``quantile``
        M is the ``level`` quantile of the ratios seen, from a histogram of log ratios with bins of
        1/256 (DDSketch, Masson, Rim & Lee 2019): at least the ratio of rank ``ceil(level * n)``
        and less than 0.4 % above it; the rank has no error but for the samples of that one bin.
        About a share ``1 - level`` of the rows violates the envelope, by design. With
        ``confidence``, M is the order statistic that is at least the true quantile with that
        probability whatever the continuous law (David & Nagaraja 2003); below the n where
        ``1 - level**n`` reaches it, the largest ratio, which is above with that lower probability.
    ``budget``
        M is 1/c with E[min(1, c·w)] = ``rate`` over the ratios seen: of all rules of that
        acceptance the one closest to p in every f-divergence (Verine et al. 2024). The histogram
        keeps the mean ratio of each bin, so only the bin that holds M adds an error, below 1e-5.
        Where fewer than ``rate`` of the ratios are above 0, M is the smallest of those. With
        ``half_life`` older ratios are forgotten, and an integral controller, driven by the mean of
        min(1, w/M), holds the rate while the ratios drift.
    ``tail``
        M is the upper end of the 95 % interval for the end of a generalised Pareto law fitted to
        the largest ``ceil(3 √S)`` of S ratios (S / 5 below 226; at most 4,095), so the supremum is
        above M with probability 2.5 % where that law holds (Coles 2001). Where one positive ratio
        fills the whole of that tail, as with a p that is a multiple of q, it is M. NaN below 25
        ratios, and with fewer than five above the tail's threshold otherwise; :class:`NoFiniteM`
        where its shape is not negative or not known to be.

    Envelopes of the same options merge in any order and grouping to the same maxima, counts and,
    without ``half_life``, histograms; sums agree to rounding. Every method may be called from
    several threads. A group takes 0.3 kB, ratios for its Pareto shape (8 bytes each, 2²⁰ / groups
    of them, none above 65,536 groups; ``tail``: 4,096) and, with a histogram, 0.6 kB for each
    quarter of a nat of log ratio that it has seen; ``budget`` twice that.

    Parameters
    ----------
    policy : {"max", "fixed", "leave_one_out", "decayed", "quantile", "budget", "tail"}
        How M follows from the ratios.
    level : float, optional
        In (0, 1]; required by, and only for, "quantile".
    groups : int
        Number of independent constants, such as one per class or prompt.
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
        acceptances today's M would have kept. "control": :meth:`update` returns weights that make
        the accepted law exact.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    References
    ----------
    Caffo, Booth & Davison, "Empirical supremum rejection sampling", Biometrika 89, 2002.
    Masson, Rim & Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
    guarantees", PVLDB 12, 2019. Liu, Chen & Wong, "Rejection control and sequential importance
    sampling", JASA 93, 1998. Coles, "An Introduction to Statistical Modeling of Extreme Values",
    2001. David & Nagaraja, "Order Statistics", 2003. Verine, Pydi, Negrevergne & Chevaleyre,
    "Optimal budgeted rejection sampling for generative models", AISTATS 2024.
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
        options = check_options(policy, level, groups, half_life, M, rate, confidence, on_violation)
        self._hold(make_core(options), options)

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

    @property
    def policy(self) -> str:
        """How M follows from the ratios, without the parameter."""
        return self._options.policy

    @property
    def level(self) -> float | None:
        """The quantile's level; None for other policies."""
        return self._options.level

    @property
    def groups(self) -> int:
        """Number of groups."""
        return self._options.groups

    @property
    def half_life(self) -> float | None:
        """In valid samples; None if nothing is forgotten."""
        return self._options.half_life

    @property
    def on_violation(self) -> str:
        """What rows above M lead to."""
        return self._options.on_violation

    def update(
        self,
        log_ratio: Rows,
        groups: Rows | None = None,
        *,
        accepted: Rows | None = None,
    ) -> Tensor | None:
        """Take in the log ratios ``log p - log q`` of a batch that has been decided.

        Parameters
        ----------
        log_ratio : Tensor or array
            Floating point, any shape, natural logarithms. NaN and +inf count as invalid, -inf is
            the valid ratio 0. Contiguous CPU tensors and arrays are read where they lie, with
            ``torch.get_num_threads()`` threads. Rows on a CUDA device stay there, and this does
            not wait for it unless ``on_violation`` is "raise": "max" and "fixed" keep counts, sums
            and largest ratios there, other policies a copy of the rows. The first call that needs
            them on the host waits. An envelope's updates belong on one stream.
        groups : Tensor or array, optional
            int64 or int32 of the same shape, ids in ``[0, groups)``. May be left out where there
            is one group.
        accepted : Tensor or array, optional
            bool of the same shape: which rows were accepted, for the report.

        Returns
        -------
        Tensor or None
            With ``on_violation="control"`` the weight of each row if it was accepted,
            max(w, M)/M, float64 of the shape of ``log_ratio``; with min(1, w/M) as the chance of
            acceptance the weighted law is exact for any M (rejection control, Liu, Chen & Wong
            1998). NaN for invalid rows, and where there was no M.

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
        check_rows(log_ratio, groups, self.groups, accepted)
        with self._lock:
            controls = self.on_violation == "control"
            weights = control_weights(self, log_ratio, groups) if controls else None
            if stays_there(log_ratio) and self.on_violation != "raise":
                self._waiting_on(log_ratio.device).update(device_rows(log_ratio, groups, accepted))
                return weights
            rows = row_memory(log_ratio, groups, self.groups)
            # Whatever raises does so before anything has been taken in.
            mask = None if accepted is None else accepted_mask(accepted)
            violations = self._core.update(rows.batch, torch.get_num_threads())
            if mask is not None:
                self._core.observe(mask, rows.batch)
        if violations and self.on_violation == "raise":
            raise EnvelopeViolation(
                f"{violations} of {math.prod(rows.shape)} rows had a ratio above the M that they "
                f"met, policy {self._options.spec()}"
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
        return thin(
            self,
            log_ratio,
            log_M,
            groups,
            seed=seed,
            generator=generator,
            row_offset=row_offset,
        )

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
            With "tail", if the ratios exclude a finite M, or do not exclude an infinite one.
        """
        if log_ratio is not None and self.policy != "leave_one_out":
            raise ValueError(f"log_ratio is for 'leave_one_out' only, got it with {self.policy!r}")
        given = log_ratio if groups is None else groups
        if given is None:
            values = self._log_M_on(device or "cpu")
            return values[0] if self.groups == 1 else values
        if device is not None:
            raise ValueError(f"device is for log_M without rows, got device={device!r} with them")
        # Of the policy "tail" a group may have no answer, which is an error for its rows only.
        if log_ratio is None and stays_there(groups) and self.policy != "tail":
            check_ids("groups", groups)
            inside = (groups >= 0) & (groups < self.groups)
            values = self._log_M_on(groups.device).take(torch.where(inside, groups, 0).long())
            return torch.where(inside, values, math.nan)
        rows = row_memory(log_ratio, groups, self.groups)
        values = torch.from_numpy(self._core.log_M(rows.batch))
        return values.reshape(given.shape).to(given.device)

    def M(
        self, groups: Tensor | None = None, *, device: torch.device | str | None = None
    ) -> Tensor:
        """Return M = exp(log M), rounded up so that ``M.log() >= log_M``; see :meth:`log_M`.

        +inf where log M is above 709.78; use :meth:`log_M` with ``log_space=True`` there.
        """
        log_M = self.log_M(groups, device=device)
        M = log_M.exp() * (1.0 + 2.0**-50 * (1.0 + log_M.abs()))
        M = torch.nextafter(M, torch.full_like(M, math.inf))
        return torch.where(log_M == -math.inf, 0.0, M)

    def tallies(self) -> dict[str, Tensor]:
        """Return the part of a :meth:`report` that needs no M and fits no tail, hence is cheap.

        Returns
        -------
        dict of str to Tensor
            ``[groups]`` a name, as in ``report().groups`` without ``log_M``, ``pareto_k`` and
            ``tv_bound``.
        """
        return {name: torch.from_numpy(column) for name, column in self._core.tallies().items()}

    @property
    def counts(self) -> EnvelopeCounts:
        """Rows seen, violations and invalid rows of each group."""
        tallies = self.tallies()
        return EnvelopeCounts(*(tallies[name] for name in EnvelopeCounts._fields))

    @property
    def seen(self) -> Tensor:
        """All rows, int64 ``[groups]``."""
        return self.counts.seen

    @property
    def violations(self) -> Tensor:
        """Rows whose ratio was above the M > 0 in force when they came, int64 ``[groups]``."""
        return self.counts.violations

    @property
    def invalid(self) -> Tensor:
        """Rows whose log ratio was NaN or +inf, int64 ``[groups]``."""
        return self.counts.invalid

    def report(self) -> EnvelopeReport:
        """Return counts, bias and cost, per group and overall; printable, and ``.to_dict()``."""
        groups, overall = self._core.report()
        return make_report(self._options.spec(), self.on_violation, groups, overall)

    def __repr__(self) -> str:
        counts, options = self.counts, self._options
        log_M = f"groups={self.groups}"
        if self.groups == 1:
            log_M = f"log_M={self.report().overall['log_M']:.6g}"
        forgets = options.half_life is not None and options.policy != "decayed"
        half_life = f", half_life={options.half_life:g}" if forgets else ""
        return (
            f"Envelope({options.spec()}{half_life}, {log_M}, seen={counts.seen.sum()}, "
            f"violations={counts.violations.sum()}, invalid={counts.invalid.sum()})"
        )
