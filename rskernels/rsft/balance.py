"""Modalities' shares of what is accepted: an M of its own for each, raised until they are even."""

import math
from typing import Any

import torch
from torch import Tensor


class Balance:
    """How often each modality is used, and the M that makes it as often as any other.

    A policy's M for each modality does not balance them: modality g gives n_g·A_g rows an epoch,
    A_g the mean of min(1, w/M_g) over its n_g rows, and a factor of balance in its ratios w is a
    factor of M_g too, and cancels. So M is raised. With K the smallest n_g·A_g over the modalities,
    each is given the M'_g ≥ M_g with

        Σ min(1, w/M'_g) = K, over the pool's rows of modality g.

    Then K rows of each are expected in an epoch, in which every row comes once: exactly where the
    ratios stay what they were, and behind by at most an epoch where the model moves, since w is a
    row's ratio of when it was last decided. M' depends on no uniform of the batch it decides. For
    each modality it is the optimal rule of that acceptance (`Envelope`'s "budget"), and its
    accepted law ∝ min(p̂, M'·q) is nearer to p̂ than M_g's; the scarcest keeps the policy's M.

    Parameters
    ----------
    modality : Tensor, optional
        int64 ``[rows of the pool]``, places in ``names``; None where there is one.
    names : tuple of str
        Of the modalities.
    has_M : bool
        Whether each has an M of its own. If not, how often each is used is counted, and no more.
    """

    def __init__(self, modality: Tensor | None, names: tuple[str, ...], *, has_M: bool) -> None:
        self._modality = modality
        self._names = names
        self._has_M = has_M and modality is not None
        rows = 0 if modality is None else len(modality)
        self._log_ratio = torch.full((rows,), -math.inf, dtype=torch.float64)
        self._used = torch.zeros(len(names), dtype=torch.int64)
        self._log_M = torch.full((len(names),), math.nan, dtype=torch.float64)

    @property
    def groups(self) -> int:
        """Groups of the envelope."""
        return len(self._names) if self._has_M else 1

    def group(self, rows: Tensor) -> Tensor | None:
        """Return the envelope's group of rows of the pool, int64 ``[n]``; None for one group."""
        return self._modality[rows] if self._has_M and self._modality is not None else None

    def fewest(self, rows: int) -> int:
        """Return the rows of the rarest group of the envelope, where the pool has `rows`."""
        if not self._has_M or self._modality is None:
            return rows
        return int(self._modality.bincount(minlength=self.groups).min())

    def log_M(self, log_M: Tensor) -> Tensor:
        """Return the log of the M'_g from that of the policy's M_g, each float64 ``[groups]``."""
        assert self._modality is not None
        ratios = [self._log_ratio[self._modality == g] for g in range(self.groups)]
        count = torch.stack(
            [(w - m).clamp(max=0).exp().sum() for w, m in zip(ratios, log_M, strict=True)]
        )
        fewest = count.min()
        self._log_M = torch.stack(
            [
                log_M_of(w, float(fewest)) if n > fewest else m
                for w, n, m in zip(ratios, count, log_M, strict=True)
            ]
        )
        return self._log_M

    def update(self, rows: Tensor, log_ratio: Tensor, mask: Tensor | None = None) -> None:
        """Take in the log ratios of rows of the pool, and which of them were used."""
        if self._modality is None:
            return
        valid = log_ratio.double() < math.inf
        self._log_ratio[rows] = log_ratio.double().where(valid, -math.inf)
        if mask is not None:
            self._used += self._modality[rows[mask]].bincount(minlength=len(self._names))

    def measures(self) -> dict[str, float]:
        """Return rows used of each modality, and the last M of each that has one."""
        used = zip(self._names, self._used.tolist(), strict=True)
        record = {f"gradient_samples_{name}": count for name, count in used}
        if self._has_M:
            each = zip(self._names, self._log_M.tolist(), strict=True)
            record |= {f"log_M_{name}": value for name, value in each}
        return record

    def state_dict(self) -> dict[str, Any]:
        """Return what has been taken in."""
        return {"log_ratio": self._log_ratio, "used": self._used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._log_ratio.copy_(state["log_ratio"])
        self._used.copy_(state["used"])


def log_M_of(log_ratio: Tensor, count: float) -> Tensor:
    """Return log M with Σ min(1, w/M) = count, exact but for rounding.

    With the j largest ratios accepted whole, the others, none of which may be above M, make up the
    rest: M_j = Σ_(i>j) w_i / (count − j). The smallest j that allows it is the answer.

    Parameters
    ----------
    log_ratio : Tensor
        float64 ``[n]``, log w; −inf is never accepted.
    count : float
        Between 0 and the number of ratios above 0, neither included.

    Returns
    -------
    Tensor
        float64 scalar.
    """
    falling = log_ratio.sort(descending=True).values
    rest = falling.flip(0).logcumsumexp(0).flip(0)  # [n], log Σ_(i≥j) w_i
    left = count - torch.arange(len(falling), dtype=torch.float64)
    log_M = (rest - left.log()).where(left > 0, math.inf)
    return log_M[torch.nonzero(falling <= log_M)[0, 0]]
