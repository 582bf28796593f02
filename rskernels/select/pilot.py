"""Where a reward stands among those of a pilot: rewards of other answers to the same prompt."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels.select.rows import Integers, Numbers, Rows, integers_of, rewards_of


class Standing(NamedTuple):
    """Where rewards stand in the pilot of their group; NaN without a reward or a pilot."""

    below: Tensor
    """float64 ``[N]``: the part of the pilot whose rewards are less, F(r-)."""
    up_to: Tensor
    """float64 ``[N]``: the part whose rewards are less or equal, F(r)."""


class Pilot:
    """Rewards that were drawn before the rows that are decided, a law for each group.

    Parameters
    ----------
    rewards : Tensor, array or sequence
        ``[K]``; without NaN or +inf.
    groups : Tensor, array or sequence, optional
        int64 or int32 ``[K]``; given exactly where the rows have groups.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or there are no rewards.
    """

    def __init__(
        self, rewards: Numbers, groups: Integers | None, has_groups: bool, device: torch.device
    ):
        self.rewards = rewards_of("pilot", rewards).to(device)
        if len(self.rewards) == 0:
            raise ValueError("pilot must hold a reward at least, got none")
        bad = int((~(self.rewards < math.inf)).sum())
        if bad:
            raise ValueError(f"pilot must be without NaN and +inf, got {bad} of them")
        if (groups is not None) != has_groups:
            raise ValueError(
                "pilot_groups must say of which group each reward of the pilot is where the rows "
                "have groups, and only there"
            )
        given = (
            torch.zeros_like(self.rewards, dtype=torch.int64)
            if groups is None
            else integers_of("pilot_groups", groups, self.rewards)
        )
        self.group_ids, self.group = given.unique(return_inverse=True)
        self.values = self.rewards.unique()
        self._keys = self._key(self.group, self.rewards).sort().values
        self._sizes = self.group.bincount()
        self._starts = self._sizes.cumsum(0) - self._sizes

    def places_of(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places of groups among the pilot's, and which groups the pilot has, bool."""
        places = torch.searchsorted(self.group_ids, groups).clamp(max=len(self.group_ids) - 1)
        return places, self.group_ids[places] == groups

    def standing(self, rewards: Tensor, groups: Tensor) -> Standing:
        """Return where rewards ``[N]`` of groups ``[N]`` stand."""
        places, is_known = self.places_of(groups)
        is_known &= rewards < math.inf
        keys = self._key(places, torch.where(is_known, rewards, 0.0))
        sizes, starts = self._sizes[places], self._starts[places]
        counts = (
            torch.searchsorted(self._keys, keys, right=right) - starts for right in (False, True)
        )
        return Standing(*(torch.where(is_known, at / sizes.double(), math.nan) for at in counts))

    def own(self) -> Standing:
        """Return where the pilot's own rewards stand."""
        return self.standing(self.rewards, self.group_ids[self.group])

    def rows(self) -> Rows:
        """Return the pilot as rows."""
        return Rows(self.rewards, self.group_ids, self.group)

    def _key(self, places: Tensor, rewards: Tensor) -> Tensor:
        """Return int64 keys in the order of group, then reward; odd if the pilot has the reward."""
        at = torch.searchsorted(self.values, rewards)
        is_one = self.values[at.clamp(max=len(self.values) - 1)] == rewards
        key: Tensor = places * (2 * len(self.values) + 2) + 2 * at + is_one
        return key
