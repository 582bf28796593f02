"""The decision about rows: one pure function, whatever engine calls it on whatever batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rskernels.law.seeds import check_seed
from rskernels.law.streams import Stream
from rskernels.ops import bernoulli_mask
from rskernels.pipeline.rows.keys import Keys
from rskernels.select.forms import Options, check_options, weigh

ALONE = ("verifier", "bounded")
"""Forms whose M is known before any row is read: a row decides alone, in one pass."""


@dataclass(frozen=True)
class Rule:
    """A form of ``select.tilt`` that decides each row alone, and the seed.

    Raises
    ------
    TypeError, ValueError
        As ``tilt``.
    """

    form: str
    beta: float
    bound: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.form not in ALONE:
            raise ValueError(f"form must be one of {', '.join(ALONE)}, got {self.form!r}")
        given = {"bound": self.bound, "n": None, "envelope": None, "pilot": None}
        check_options(self.form, self.beta, given)
        check_seed(self.seed)


class Decisions(NamedTuple):
    """What became of rows."""

    mask: NDArray[np.bool_]
    """``[N]``: which are kept."""
    log_ratio: NDArray[np.float64]
    """``[N]``: log w - log M; NaN of rows without."""
    invalid: NDArray[np.bool_]
    """``[N]``: whose reward is none of the form."""


def decide(keys: Keys, rule: Rule) -> Decisions:
    """Decide rows, each by its reward, its id and the seed alone.

    Parameters
    ----------
    keys : Keys
        With final ids.
    rule : Rule
        How.
    """
    rewards = torch.from_numpy(np.ascontiguousarray(keys.reward))
    ids = torch.from_numpy(np.ascontiguousarray(keys.id))
    options = Options(rule.bound, None, None, None)
    weighted = weigh(rule.form, rewards, None, rule.beta, options)
    mask = bernoulli_mask(
        weighted.log_ratio, seed=check_seed(rule.seed), stream=Stream.SELECT, ids=ids
    )
    return Decisions(mask.numpy(), weighted.log_ratio.numpy(), weighted.invalid.numpy())
