"""The options of every run, and of the gradient loop."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from rskernels.envelope import Envelope
from rskernels.envelope.policies import FORGETTING, parse_spec
from rskernels.rsft.options import (
    BELOW_ONE,
    POSITIVE,
    SEED,
    Options,
    one_of,
    option,
    whole,
)
from rskernels.rsft.rules import RULES, Rule

# Rules that learn the M of an Envelope; the others have none, or one of their own.
LEARNS_M = tuple(name for name, rule in RULES.items() if rule.rejects and rule.envelope is None)

METHOD = "Method"
TRAINING = "Training"
ENVELOPE = f"Envelope constant M (--method {', '.join(LEARNS_M)})"
RUN = "Run"


@dataclass(frozen=True, kw_only=True)
class RunConfig(Options, ABC):
    """Options that every run has."""

    seed: int = option(0, "Decides everything random.", RUN, accepted=SEED)
    threads: int = option(
        1,
        "Threads of torch; the bits of a convolution depend on them.",
        RUN,
        accepted=whole(1, 1024),
    )

    @property
    @abstractmethod
    def title(self) -> str:
        """What tells this run from others, for figures and tables."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig(RunConfig):
    """What the gradient loop reads: two runs of equal task and configuration are bit-identical."""

    method: str = option(
        "accept", "The rule by which samples are selected.", METHOD, accepted=one_of(RULES)
    )
    envelope: str | None = option(
        "quantile:0.9",
        "Policy of the envelope constant M: max, quantile:0.9, budget:0.5, decayed, "
        "leave_one_out, fixed:20 or tail.",
        ENVELOPE,
        read_by=("method", LEARNS_M),
    )
    half_life: float | None = option(
        None,
        "Samples after which a quantile, budget or decayed envelope has forgotten half of what it "
        "saw, since q moves as the model learns; inf never forgets.",
        ENVELOPE,
        read_by=("method", LEARNS_M),
        shown="one pass over the pool, or over its rarest modality",
    )
    freeze: bool = option(
        False,
        "Keep M as the untrained model's ratios make it.",
        ENVELOPE,
        read_by=("method", LEARNS_M),
    )
    epochs: int = option(
        30, "Passes over the training pool.", TRAINING, accepted=whole(1), may_change=True
    )
    batch_size: int = option(64, "Samples of a batch.", TRAINING, accepted=whole(1))
    lr: float = option(0.05, "Learning rate of SGD.", TRAINING, accepted=POSITIVE)
    momentum: float = option(0.9, "Momentum of SGD.", TRAINING, accepted=BELOW_ONE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.envelope is not None:
            # Where no half-life is given the length of the pool, not known yet, will do.
            make_envelope(self.envelope, self.half_life, default=1.0)

    @property
    def rule(self) -> Rule:
        """The rule that samples are selected by."""
        return RULES[self.method]

    @property
    def title(self) -> str:
        """The method, and what else tells this run from others."""
        if self.envelope is None:
            return self.method
        return f"{self.method}, M {self.envelope}{' of the pilot' * self.freeze}"


def make_envelope(
    text: str, half_life: float | None, *, default: float, groups: int = 1
) -> Envelope:
    """Return the envelope of a text; one that forgets does so by `default` if none is given."""
    policy, parameter = parse_spec(text)
    if half_life is None and policy in FORGETTING and "half_life" not in parameter:
        half_life = default
    half_life = None if half_life == math.inf else half_life
    return Envelope.parse(text, groups=groups, half_life=half_life)
