"""What hooks of several frameworks need: a collator, a warning, and Megatron's ranks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch


class WithColumn:
    """A collator that hands on a column of numbers where there is one, as float64 ``[B]``."""

    def __init__(self, collator: Callable[[list[Any]], Any], column: str) -> None:
        self.collator, self.column = collator, column

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        """Return what the collator makes of examples, and the column."""
        if not any(self.column in example for example in examples):  # as of an evaluation
            return self.collator(examples)
        numbers = [example[self.column] for example in examples]
        rest = [{k: v for k, v in row.items() if k != self.column} for row in examples]
        batch = self.collator(rest)
        batch[self.column] = torch.tensor(numbers, dtype=torch.float64)
        return batch


def warn_of_cuts(args: Any) -> None:
    """Warn where the sampler cuts off tokens that the policy could give."""
    whole: dict[str, tuple[Any, ...]] = {
        "top_p": (None, 1.0),
        "top_k": (None, 0, -1),
        "min_p": (None, 0.0),
        "repetition_penalty": (None, 1.0),
    }
    cuts = {name: getattr(args, name, None) for name in whole}
    if cuts := {name: value for name, value in cuts.items() if value not in whole[name]}:
        given = ", ".join(f"{name}={value}" for name, value in cuts.items())
        warnings.warn(
            f"rollouts are sampled with {given}, so that what is accepted is no sample of the "
            "policy, whatever M: sample from its whole law",
            stacklevel=4,
        )


def megatron() -> Any:
    """Return Megatron's parallel state where it has been set up, else None."""
    try:
        from megatron.core import mpu
    except ImportError:
        return None
    return mpu if mpu.model_parallel_is_initialized() else None
