"""The envelope constant M as state: what the log ratios seen so far make of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from rskernels import _core
from rskernels.estimate import check_ids, check_level, estimate_M, flat

__all__ = ["Envelope", "EnvelopeCounts", "estimate_M"]

POLICIES = ("max", "quantile")

STATE_DTYPES = {
    "seen": torch.int64,
    "violations": torch.int64,
    "invalid": torch.int64,
    "max_log_ratio": torch.float64,
    "unit": torch.float64,
    "bin_start": torch.int64,
    "bin_edge": torch.float64,
    "bin_count": torch.float64,
}


class EnvelopeCounts(NamedTuple):
    """Rows an envelope has been shown, taken at one instant; each int64 ``[groups]``."""

    seen: Tensor
    """All rows."""
    violations: Tensor
    """Rows whose ratio was above the M in force when they came."""
    invalid: Tensor
    """Rows whose log ratio was NaN or +inf; they leave M as it is."""


class Envelope:
    """The envelope constant M of one or more groups, learnt from the log ratios seen so far.

    Decide a batch with :meth:`log_M`, then :meth:`update` with its ratios: an M that has seen the
    rows it decides biases what is accepted. Ratios above the M in force count as violations.

    ``max``
        M is the largest ratio seen (empirical supremum rejection sampling, Caffo, Booth & Davison
        2002). Where the true supremum is finite M rises to it, and the accepted law tends to the
        target; a fresh ratio of the same continuous law exceeds the largest of n with probability
        1 / (n + 1).
    ``quantile``
        M is the ``level`` quantile of the ratios seen, from a histogram of log ratios with bins of
        1/256 (DDSketch, Masson, Rim & Lee 2019): at least the ratio of rank ``ceil(level * n)``
        and less than 0.4 % above it. About a share ``1 - level`` of the rows violates the envelope,
        by design; they are capped and counted.

    Envelopes of the same options merge; maxima, counts and, without ``half_life``, histograms do
    not depend on the order or grouping. Every method may be called from several threads.

    Parameters
    ----------
    policy : {"max", "quantile"}
        How M follows from the ratios.
    level : float, optional
        In (0, 1]; required by, and only for, "quantile".
    groups : int
        Number of independent constants, such as one per class or prompt.
    half_life : float, optional
        For "quantile": a valid sample weighs half as much after this many further valid samples of
        its group, at least 1. None forgets nothing.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    References
    ----------
    Caffo, Booth & Davison, "Empirical supremum rejection sampling", Biometrika 89, 2002.
    Masson, Rim & Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
    guarantees", PVLDB 12, 2019.
    """

    def __init__(
        self,
        policy: str = "max",
        *,
        level: float | None = None,
        groups: int = 1,
        half_life: float | None = None,
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(
                f"policy must be 'max' or 'quantile', got {policy!r}; Envelope.parse reads "
                "'quantile:LEVEL'"
            )
        if isinstance(groups, bool) or not isinstance(groups, int):
            raise TypeError(f"groups must be an int, got {type(groups).__name__}")
        if not 1 <= groups < 2**63:
            raise ValueError(f"groups must be at least 1, got {groups}")
        if half_life is not None:
            if isinstance(half_life, bool) or not isinstance(half_life, Real):
                raise TypeError(f"half_life must be a float, got {type(half_life).__name__}")
            if policy != "quantile":
                raise ValueError(
                    f"half_life is for 'quantile' only, got half_life={half_life} with 'max': "
                    "a maximum does not decay"
                )
            if not 1.0 <= half_life < math.inf:
                raise ValueError(f"half_life must be finite and at least 1 sample, got {half_life}")
            half_life = float(half_life)
        self._policy = policy
        self._level = check_level(policy, level)
        self._groups = groups
        self._half_life = half_life
        self._core = _core.Envelope(cast("_core._Policy", policy), self._level, groups, half_life)

    @classmethod
    def parse(cls, text: str, *, groups: int = 1, half_life: float | None = None) -> Envelope:
        """Make an envelope from ``"max"`` or ``"quantile:LEVEL"``, as the command line writes it.

        Raises
        ------
        ValueError
            If the text, or another argument, is not as above.
        """
        policy, separator, number = text.partition(":")
        level: float | None = None
        try:
            if policy not in POLICIES or bool(separator) != (policy == "quantile"):
                raise ValueError
            if separator:
                level = float(number)
        except ValueError:
            raise ValueError(
                f"an envelope is 'max' or 'quantile:LEVEL' with LEVEL in (0, 1], got {text!r}"
            ) from None
        return cls(policy, level=level, groups=groups, half_life=half_life)

    @property
    def policy(self) -> str:
        """``"max"`` or ``"quantile"``."""
        return self._policy

    @property
    def level(self) -> float | None:
        """The quantile's level; None for ``"max"``."""
        return self._level if self._policy == "quantile" else None

    @property
    def groups(self) -> int:
        """Number of groups."""
        return self._groups

    @property
    def half_life(self) -> float | None:
        """In valid samples; None if nothing is forgotten."""
        return self._half_life

    def update(self, log_ratio: Tensor, groups: Tensor | None = None) -> None:
        """Take in the log ratios ``log p - log q`` of a batch that has been decided.

        Parameters
        ----------
        log_ratio : Tensor
            Floating point, any shape, natural logarithms. NaN and +inf count as invalid, -inf is
            the valid ratio 0. A CUDA tensor is copied to the host, which waits for the device.
        groups : Tensor, optional
            int64 or int32 of the same shape, ids in ``[0, groups)``. May be left out where there
            is one group.

        Raises
        ------
        TypeError, ValueError
            If a dtype or shape is not as above, or ids are missing.
        IndexError
            If an id is outside ``[0, groups)``; then nothing has been taken in.
        """
        if not isinstance(log_ratio, Tensor) or not log_ratio.is_floating_point():
            kind = log_ratio.dtype if isinstance(log_ratio, Tensor) else type(log_ratio).__name__
            raise TypeError(f"log_ratio must be a floating-point tensor, got {kind}")
        ids = None
        if groups is not None:
            check_ids("groups", groups)
            if groups.shape != log_ratio.shape:
                raise ValueError(
                    f"groups must have the shape of log_ratio, {list(log_ratio.shape)}, got "
                    f"{list(groups.shape)}"
                )
            ids = flat(groups, torch.int64)
        elif self._groups > 1:
            raise ValueError(f"an envelope of {self._groups} groups needs the group of every row")
        self._core.update(flat(log_ratio, torch.float64), ids)

    def log_M(self, groups: Tensor | None = None) -> Tensor:
        """Return log M, float64; NaN for a group that has seen no valid ratio.

        A mask decided with NaN rejects the row and counts it as invalid.

        Parameters
        ----------
        groups : Tensor, optional
            int64 or int32, any shape, ids in ``[0, groups)``. Ids on a CUDA device are copied to
            the host, which waits for the device.

        Returns
        -------
        Tensor
            Of the shape of ``groups``, on its device. Without ids a CPU tensor: ``[]`` for one
            group, else ``[groups]``.

        Raises
        ------
        TypeError, IndexError
            If ``groups`` has another dtype, or holds an id outside ``[0, groups)``.
        """
        if groups is not None:
            check_ids("groups", groups)
            values = torch.from_numpy(self._core.log_M(flat(groups, torch.int64)))
            return values.reshape(groups.shape).to(groups.device)
        values = torch.from_numpy(self._core.log_M())
        return values[0] if self._groups == 1 else values

    def M(self, groups: Tensor | None = None) -> Tensor:
        """Return M = exp(log M), rounded up so that ``M.log() >= log_M``; see :meth:`log_M`.

        +inf where log M is above 709.78; use :meth:`log_M` with ``log_space=True`` there.
        """
        log_M = self.log_M(groups)
        M = log_M.exp() * (1.0 + 2.0**-50 * (1.0 + log_M.abs()))
        M = torch.nextafter(M, torch.full_like(M, math.inf))
        return torch.where(log_M == -math.inf, 0.0, M)

    def merge(self, other: Envelope) -> Envelope:
        """Add what ``other`` has seen, in place, and return self.

        With ``half_life`` the newest samples of both count as equally old.

        Raises
        ------
        TypeError
            If ``other`` is no Envelope.
        ValueError
            If policy, level, groups or half_life differ.
        """
        if not isinstance(other, Envelope):
            raise TypeError(f"only an Envelope can be merged, got {type(other).__name__}")
        self._check_options(other._options())
        self._core.merge(other._core)
        return self

    @property
    def counts(self) -> EnvelopeCounts:
        """Rows seen, violations and invalid rows of each group."""
        return EnvelopeCounts(*map(torch.from_numpy, self._core.counts()))

    @property
    def seen(self) -> Tensor:
        """All rows, int64 ``[groups]``."""
        return self.counts.seen

    @property
    def violations(self) -> Tensor:
        """Rows whose ratio was above the M in force when they came, int64 ``[groups]``."""
        return self.counts.violations

    @property
    def invalid(self) -> Tensor:
        """Rows whose log ratio was NaN or +inf, int64 ``[groups]``."""
        return self.counts.invalid

    def report(self) -> dict[str, Any]:
        """Return the policy and, as lists with an entry a group, the counts and log M."""
        counts = self.counts
        return {
            "policy": self._spec(),
            "seen": counts.seen.tolist(),
            "violations": counts.violations.tolist(),
            "invalid": counts.invalid.tolist(),
            "log_M": self.log_M().reshape(-1).tolist(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything in types that ``torch.load(weights_only=True)`` reads."""
        arrays = {name: torch.from_numpy(array) for name, array in self._core.state().items()}
        return {**self._options(), **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace what has been seen by a :meth:`state_dict` of an envelope of the same options.

        Raises
        ------
        TypeError, ValueError
            If an entry is missing, unknown or of another dtype, the options differ, or the values
            fit no envelope. The envelope then stays as it was.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state must be a mapping, got {type(state).__name__}")
        expected = {*self._options(), *STATE_DTYPES}
        if set(state) != expected:
            raise ValueError(
                f"state lacks {sorted(expected - set(state))} and has unknown entries "
                f"{sorted(map(str, set(state) - expected))}"
            )
        self._check_options({name: state[name] for name in self._options()})
        arrays = {}
        for name, dtype in STATE_DTYPES.items():
            tensor = state[name]
            if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
                kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
                raise TypeError(f"state[{name!r}] must be a {dtype} tensor, got {kind}")
            if tensor.dim() != 1:
                raise ValueError(
                    f"state[{name!r}] must have one dimension, got shape {list(tensor.shape)}"
                )
            arrays[name] = flat(tensor, dtype)
        self._core.restore(cast("_core._State", arrays))

    def __repr__(self) -> str:
        counts = self.counts
        log_M = (
            f"log_M={self.log_M().item():.6g}" if self._groups == 1 else f"groups={self._groups}"
        )
        half_life = "" if self._half_life is None else f", half_life={self._half_life:g}"
        return (
            f"Envelope({self._spec()}{half_life}, {log_M}, seen={counts.seen.sum().item()}, "
            f"violations={counts.violations.sum().item()}, invalid={counts.invalid.sum().item()})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = ("policy", "level", "groups", "half_life")
        options = {name: state[name] for name in names}
        Envelope.__init__(self, **options)
        self.load_state_dict(state)

    def _options(self) -> dict[str, Any]:
        return {
            "policy": self._policy,
            "level": self.level,
            "groups": self._groups,
            "half_life": self._half_life,
        }

    def _check_options(self, options: dict[str, Any]) -> None:
        ours = self._options()
        if options != ours:
            raise ValueError(f"the envelopes differ: this one is {ours}, the other {options}")

    def _spec(self) -> str:
        return "max" if self._policy == "max" else f"quantile:{self._level:g}"
