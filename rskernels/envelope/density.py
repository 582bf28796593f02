"""The density that is not the model's, beside an envelope's M."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from rskernels.law.numbers import FLOAT64_ROUNDING
from rskernels.ops.arguments import check_floating, number_argument

MOST_LOG = 700.0
"""e to a number of up to this size is a float64 of full precision."""


class Density(NamedTuple):
    """The density that is not the model's, as it was given."""

    name: str
    values: Tensor | float
    is_log: bool

    def log(self) -> Tensor | float:
        """Return its logarithm, in float64; NaN where it has none."""
        if self.is_log:
            return self.values
        if isinstance(self.values, Tensor):
            check_floating(self.name, self.values)
            return self.values.detach().double().log()
        number = number_argument(self.name, self.values)
        if not 0.0 <= number < math.inf:
            raise ValueError(f"{self.name} must be a finite number of at least 0, got {number}")
        return math.log(number) if number > 0.0 else -math.inf

    def beside(self, log_M: Tensor, is_dense: bool) -> tuple[Tensor | float, Tensor | float, bool]:
        """Return density and M in one space, and whether it is that of logarithms.

        It is, since M may be larger than any float64; but where one number M is not, and lies where
        it is read without a wait, a logarithm of every entry is not made.
        """
        has_one = is_dense and log_M.dim() == 0 and log_M.device.type == "cpu"
        if has_one and not self.is_log and isinstance(self.values, Tensor):
            log_number = log_M.item()
            if log_number == math.inf or abs(log_number) < MOST_LOG:
                up = 1.0 + FLOAT64_ROUNDING * (2.0 + abs(log_number))  # as Envelope.M
                return self.values, math.exp(log_number) * up, False
        return self.log(), log_M, True
