"""Rewards, groups and ids as they are given, checked and laid out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

Numbers: TypeAlias = Tensor | np.ndarray[Any, Any] | Sequence[float]
"""Rewards."""
Integers: TypeAlias = Tensor | np.ndarray[Any, Any] | Sequence[int]
"""Groups, ids."""


SHOWN = 60  # characters of what is no number


class Rows(NamedTuple):
    """Rows that are selected from, all on one device."""

    rewards: Tensor
    """float64 ``[N]``."""
    group_ids: Tensor
    """int64 ``[G]``, rising: the groups there are."""
    group: Tensor
    """int64 ``[N]``: the place of a row's group among ``group_ids``."""

    @property
    def groups(self) -> Tensor:
        """The group of each row as it was given, int64 ``[N]``."""
        return self.group_ids[self.group]


def rows_of(rewards: Numbers, groups: Integers | None) -> Rows:
    """Return rows.

    Raises
    ------
    TypeError, ValueError
        If rewards are not numbers ``[N]``, or groups not integers of the same shape.
    """
    values = rewards_of("rewards", rewards)
    if groups is None:
        one = torch.zeros(min(1, len(values)), dtype=torch.int64, device=values.device)
        return Rows(values, one, torch.zeros(len(values), dtype=torch.int64, device=values.device))
    given = integers_of("groups", groups, values)
    ids, places = given.unique(return_inverse=True)
    return Rows(values, ids, places)


def rewards_of(name: str, rewards: Numbers) -> Tensor:
    """Return numbers as float64 ``[N]``, without gradient."""
    values = _tensor(name, rewards)
    if values.dim() != 1:
        raise ValueError(f"{name} must have shape [N], got {list(values.shape)}")
    if values.is_complex():
        raise TypeError(f"{name} must be real numbers, got {values.dtype}")
    return values.detach().double()


def integers_of(name: str, integers: Integers, rewards: Tensor) -> Tensor:
    """Return one integer of each row, int64 ``[N]``, on the device of the rewards."""
    values = _tensor(name, integers, "integers")
    if values.shape != rewards.shape:
        raise ValueError(
            f"{name} must have the shape of the rewards, {list(rewards.shape)}, got "
            f"{list(values.shape)}"
        )
    if values.numel() == 0:
        values = values.long()
    if values.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must be int64 or int32, got {values.dtype}")
    return values.to(rewards.device, torch.int64)


def ids_of(ids: Integers | None, rewards: Tensor) -> Tensor:
    """Return the ids of rows, int64 ``[N]``; their places where none are given.

    Raises
    ------
    ValueError
        If two rows have the same id: they would be decided by the same uniform.
    """
    if ids is None:
        return torch.arange(len(rewards), device=rewards.device)
    values = integers_of("ids", ids, rewards)
    ordered = values.sort().values
    repeated = int((ordered[1:] == ordered[:-1]).sum())
    if repeated:
        raise ValueError(f"ids must differ, got {repeated} of {len(values)} a second time")
    return values


def _tensor(name: str, values: object, kind: str = "numbers") -> Tensor:
    if isinstance(values, Tensor):
        return values
    if isinstance(values, np.ndarray) or (
        isinstance(values, Sequence) and not isinstance(values, (str, bytes))
    ):
        try:
            # From Python's floats NumPy makes float64, torch float32.
            array = np.array(values)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} must be {kind}, got what is none ({error})") from error
        if array.dtype.kind in "biufc":
            return torch.from_numpy(array)
        first = repr(next(iter(array.ravel().tolist()), None))[:SHOWN]
        raise TypeError(f"{name} must be {kind}, got {first} in an array of {array.dtype}")
    raise TypeError(
        f"{name} must be a tensor, an array or a sequence of {kind}, got {type(values).__name__}"
    )
