"""The public methods of an envelope that read, merge and save what it has seen."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

from rskernels._torch.fast_path import refuse_in_graph
from rskernels.envelope.options import Options
from rskernels.envelope.report import EnvelopeCounts, EnvelopeReport, make_report
from rskernels.envelope.storage import Store

Self = TypeVar("Self", bound="EnvelopeState")


class EnvelopeState:
    """The state of an envelope, apart from how rows are decided by it.

    Parameters
    ----------
    options : Options
        Of the envelope; states of the same options can be merged.
    """

    def __init__(self, options: Options) -> None:
        self._store = Store(options)

    @property
    def policy(self) -> str:
        """How M follows from the ratios, without the parameter."""
        return self._options.policy.name

    @property
    def level(self) -> float | None:
        """The quantile's level; None for other policies."""
        return self._options.policy.numbers.get("level")

    @property
    def groups(self) -> int:
        """Number of groups."""
        return self._options.groups

    @property
    def half_life(self) -> float | None:
        """In valid samples; None if nothing is forgotten."""
        return self._options.policy.numbers.get("half_life")

    @property
    def on_violation(self) -> str:
        """What rows above M lead to."""
        return self._options.on_violation

    @property
    def _options(self) -> Options:
        return self._store.options

    def tallies(self) -> dict[str, Tensor]:
        """Return the part of a :meth:`report` that needs no M and fits no tail, hence is cheap.

        Returns
        -------
        dict of str to Tensor
            ``[groups]`` a name, as in ``report().groups`` without ``log_M`` and ``pareto_k``.
        """
        return self._store.tallies()

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
        groups, overall = self._store.report()
        options = self._store.options
        return make_report(options.policy.text, options.on_violation, groups, overall)

    def merge(self: Self, other: EnvelopeState) -> Self:
        """Add what ``other`` has seen, in place, and return self.

        With ``half_life`` the newest samples of both count as equally old.

        Raises
        ------
        TypeError
            If ``other`` is no Envelope.
        ValueError
            If an option differs.
        """
        if not isinstance(other, EnvelopeState):
            raise TypeError(f"only an Envelope can be merged, got {type(other).__name__}")
        self._store.merge(other._store)
        return self

    def all_reduce(self: Self, group: dist.ProcessGroup | None = None) -> Self:
        """Merge the envelopes of all processes, in place on each, and return self.

        Every rank ends with what one process would hold that saw the rows of all: the same
        maxima, counts and histograms, sums to rounding. As with the collectives of torch, every
        rank of the group must call it, and a second call counts all rows again: keep what is new
        in an envelope of its own, reduce that and :meth:`merge` it.

        Two collectives, whatever the number of groups; on the GPU where the backend is NCCL. Each
        rank receives the state of all of them for a while, of the size that :meth:`to_bytes` has.
        Meanwhile other threads may read and fork; those that would change the envelope wait, and
        a child of a fork has it as it was.

        Parameters
        ----------
        group : torch.distributed.ProcessGroup, optional
            The default group if None.

        Raises
        ------
        ValueError
            On every rank if an option differs, such as the number of groups; if there is no
            process group, or this process is none of the group. The envelope then stays as it was.
        RuntimeError
            If another rank cannot read what it was shown, such as a group id on a GPU that lies
            outside; that rank raises what kept it from it.
        """
        self._store.all_reduce(group)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Return the options, and what has been seen as bytes under ``"state"``.

        For ``torch.save``, ``torch.load(weights_only=True)`` and ``torch.distributed.checkpoint``,
        which also takes the envelope itself. Of an entry that several ranks save, the latter keeps
        that of one of them: :meth:`all_reduce` first, or give each rank a key of its own. A Module
        saves an envelope only where its ``get_extra_state`` returns this.
        """
        return self._store.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace what has been seen by a :meth:`state_dict` of an envelope of the same options.

        An earlier form, which holds a tensor a column, is read as well.

        Raises
        ------
        TypeError, ValueError
            If an entry is missing, unknown, of another type or dtype, or a tensor without values
            (on "meta"); if the options differ, or the values fit no envelope. The envelope then
            stays as it was.
        """
        self._store.load_state_dict(state)

    def to_bytes(self) -> bytes:
        """Return options and state as bytes, with a version, their length and a checksum."""
        return self._store.to_bytes()

    @classmethod
    def from_bytes(cls: type[Self], data: bytes) -> Self:
        """Make the envelope that :meth:`to_bytes` wrote down; ``__init__`` is not called.

        Raises
        ------
        TypeError, ValueError
            If `data` is no bytes, truncated, damaged, of another version or no envelope.
        """
        envelope = cls.__new__(cls)
        envelope._store = Store.from_bytes(data)
        return envelope

    def load_bytes(self, data: bytes) -> None:
        """Replace what has been seen by what :meth:`to_bytes` of the same options wrote down.

        Raises
        ------
        TypeError, ValueError
            As :meth:`from_bytes`, and if the options differ. The envelope then stays as it was.
        """
        self._store.load_bytes(data)

    def __repr__(self) -> str:
        counts, policy = self.counts, self._options.policy
        log_M = f"groups={self.groups}"
        if self.groups == 1:
            log_M = f"log_M={self.report().overall['log_M']:.6g}"
        forgets = self.half_life is not None and policy.parameter != "half_life"
        half_life = f", half_life={self.half_life:g}" if forgets else ""
        return (
            f"Envelope({policy.text}{half_life}, {log_M}, seen={counts.seen.sum()}, "
            f"violations={counts.violations.sum()}, invalid={counts.invalid.sum()})"
        )

    def __copy__(self: Self) -> Self:
        refuse_in_graph("an Envelope")
        # With a state of its own, unlike the other attributes: what it is shown it alone has seen.
        own = (id(self), id(self._store))
        shared = [value for value in vars(self).values() if id(value) not in own]
        return copy.deepcopy(self, {id(value): value for value in shared})


def columns_of(envelope: EnvelopeState) -> dict[str, Tensor]:
    """Return a copy of all that an envelope has seen, a tensor a column of its core's state."""
    return envelope._store.columns()
