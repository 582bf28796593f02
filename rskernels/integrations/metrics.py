"""What was decided, as one tensor with names: logging it waits for the device once.

Batches of a logging step, and of several ranks, are first added as sums, which stay on the device:
a mean of ratios would give a batch of few rows the weight of one of many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from rskernels.envelope import Envelope
from rskernels.law.numbers import ACCEPTED, INVALID, VIOLATIONS
from rskernels.ops import Acceptance, SequenceAcceptance

NAMES = ("acceptance", "violations", "invalid", "excess", "tv_bound", "log_M", "ess")
"""What :class:`DecisionMetrics` has, in this order."""

# Places of the sums. _W and _W2 are of w and w², divided by exp(_TOP) and its square, of _TOP the
# largest log w.
_ACCEPTED, _VALID, _VIOLATIONS, _INVALID, _EXCESS, _MASS, _W, _W2, _TOP, _LOG_M = range(10)
SIZE = 10


class DecisionMetrics(NamedTuple):
    """Numbers about decisions, over valid rows only: no padding, no ignored or empty row.

    With w = p/q of a row, or of a sequence, and M the constant that it was decided by:
    ``acceptance``, the share of valid rows that were accepted; ``violations`` and ``invalid``, how
    many rows had w > M or no ratio; ``excess``, the mean of (w/M - 1)+; ``tv_bound``, the excess
    mass Σ(w/M - 1)+ / Σ(w/M), which bounds the total variation between p and the accepted law if M
    was given, and estimates it from the ratios seen if M was learnt; ``log_M``, the largest of all
    groups, for an envelope as it is now, which is not what earlier rows were decided by; ``ess``,
    the effective sample size (Σw)²/Σw² that weights in the place of decisions would have. NaN where
    there is none.
    """

    names: tuple[str, ...]
    """:data:`NAMES`."""
    values: Tensor
    """float64 ``[len(names)]``, on the device of the decisions."""

    def to_dict(self, prefix: str = "") -> dict[str, float]:
        """Return a number a name, which waits for the device once.

        Parameters
        ----------
        prefix : str
            Put before each name, such as ``"rejection/"``.
        """
        pairs = zip(self.names, self.values.tolist(), strict=True)
        return {prefix + name: value for name, value in pairs}


def decision_metrics(
    seen: Acceptance | SequenceAcceptance | Sequence[Acceptance | SequenceAcceptance],
    envelope: Envelope | Tensor | float | None = None,
) -> DecisionMetrics:
    """Return the metrics of one or several batches of decisions, without waiting for a device.

    Parameters
    ----------
    seen : Acceptance, SequenceAcceptance, or a sequence of them
        What :func:`accept`, :func:`accept_sequences` or the methods of an :class:`Envelope`
        returned.
    envelope : Envelope, Tensor or float, optional
        Whose log M is reported, or log M itself. An Envelope with another policy than "max" or
        "fixed" waits for the rows that a device holds. None: NaN, as where "tail" finds no finite
        M.

    Returns
    -------
    DecisionMetrics

    Raises
    ------
    TypeError
        If ``seen`` is something else, or log M is.

    Examples
    --------
    >>> import rskernels
    >>> seen = rskernels.bernoulli(torch.tensor([0.0, 0.0, torch.nan]), 1.0, seed=0)
    >>> decision_metrics(seen, 0.0).to_dict()["acceptance"]
    1.0
    """
    batches = [seen] if isinstance(seen, Acceptance | SequenceAcceptance) else list(seen)
    return metrics_of(combine([decision_sums(batch, envelope) for batch in batches]))


def decision_sums(
    seen: Acceptance | SequenceAcceptance, envelope: Envelope | Tensor | float | None = None
) -> Tensor:
    """Return what the metrics of a batch follow from: float64 ``[SIZE]``, on its device.

    :func:`combine` adds them; parameters and errors are those of :func:`decision_metrics`.
    """
    if not isinstance(seen, Acceptance | SequenceAcceptance):
        raise TypeError(
            f"seen must be an Acceptance or a SequenceAcceptance, got {type(seen).__name__}"
        )
    ratios = seen.log_ratio.detach().double().flatten()
    valid = ~ratios.isnan()
    # A batch of no rows, or whose ratios are all 0, has no largest: its sums are 0 at any scale.
    top = torch.where(valid, ratios, -math.inf)
    top = torch.cat([top, top.new_full((1,), -math.inf)]).amax()
    scale = torch.where(top > -math.inf, top, 0.0)
    w = torch.where(valid, (ratios - scale).exp(), 0.0)
    counts = seen.counts.double()
    return torch.stack(
        [
            counts[ACCEPTED], valid.sum().double(), counts[VIOLATIONS], counts[INVALID],
            seen.excess[0].double(), seen.excess[1].double(), w.sum(), w.square().sum(), top,
            largest_log_M(envelope, ratios.device),
        ]
    )  # fmt: skip


def combine(sums: Tensor | Sequence[Tensor]) -> Tensor:
    """Add :func:`decision_sums` of batches, a sequence of them or ``[n, SIZE]``; ``[SIZE]``.

    log M is that of the last batch that has one. Of no batches all is 0, and log M NaN.
    """
    if not isinstance(sums, Tensor):
        sums = torch.stack(list(sums)) if len(sums) > 0 else no_sums()[None]
    top = sums[:, _TOP].amax()
    scale = torch.where(sums[:, _TOP] > -math.inf, (sums[:, _TOP] - top).exp(), 0.0)
    total = sums[:, :_W].sum(0)
    weight = (sums[:, _W] * scale).sum()
    square = (sums[:, _W2] * scale.square()).sum()
    log_M = sums[:, _LOG_M]
    places = torch.arange(len(log_M), device=log_M.device)
    last = torch.where(log_M.isnan(), -1, places).amax().clamp(min=0)
    # Indexing by a tensor without dimensions would read it on the host.
    return torch.cat([total, torch.stack([weight, square, top]), log_M.gather(0, last[None])])


def no_sums(device: torch.device | str = "cpu") -> Tensor:
    """Return the sums of no rows, with which :func:`combine` changes nothing."""
    sums = torch.zeros(SIZE, dtype=torch.float64, device=device)
    sums[_TOP], sums[_LOG_M] = -math.inf, math.nan
    return sums


def all_reduce_sums(sums: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return the sums over all processes, by one collective; as they are without a process group.

    Every rank of the group must call it.

    Parameters
    ----------
    sums : Tensor
        float64 ``[SIZE]``; where the backend is NCCL it is moved to the GPU and back.
    group : torch.distributed.ProcessGroup, optional
        The default group if None.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return sums
    # A rank that has decided nothing has its sums on the CPU.
    own = sums.cuda() if dist.get_backend(group) == "nccl" else sums.contiguous()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, own, group=group)
    return combine(parts).to(sums.device)


def metrics_of(sums: Tensor) -> DecisionMetrics:
    """Return the metrics that follow from sums, float64 ``[SIZE]``."""
    valid = sums[_VALID]
    values = [
        sums[_ACCEPTED] / valid,
        sums[_VIOLATIONS],
        sums[_INVALID],
        sums[_EXCESS] / valid,
        sums[_EXCESS] / sums[_MASS],
        sums[_LOG_M],
        sums[_W].square() / sums[_W2],
    ]
    return DecisionMetrics(NAMES, torch.stack(values))


def largest_log_M(envelope: Envelope | Tensor | float | None, device: torch.device) -> Tensor:
    """Return one log M, the largest of those that are known; NaN where none is."""
    if isinstance(envelope, Envelope):
        log_M: Tensor | float | None = envelope.known_log_M(device=device)
    else:
        log_M = envelope
    if isinstance(log_M, Tensor):
        values = log_M.detach().to(device, torch.float64).flatten()
    elif log_M is None or isinstance(log_M, int | float):
        number = math.nan if log_M is None else float(log_M)
        values = torch.full((1,), number, dtype=torch.float64, device=device)
    else:
        raise TypeError(
            f"envelope must be an Envelope, or log M as a tensor or number, got "
            f"{type(envelope).__name__}"
        )
    largest = torch.where(values.isnan(), -math.inf, values).amax()
    return torch.where(values.isnan().all(), math.nan, largest)
