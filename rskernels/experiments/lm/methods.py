"""The methods: which answers are trained on, and with what weight.

Those of the kind "rows" train on a set of rows by cross entropy: one's demonstrations, or what a
selection keeps of the round's answers. Those of the kind "gradient" follow the policy gradient of
the mean reward, with each answer's reward less the mean over the answers to its prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rskernels.language.choose import Scored
from rskernels.select import (
    TiltedSelection,
    rso,
    soft_best_of_n,
    threshold,
    tilt,
    top_k,
    weights,
)

ROWS, GRADIENT, RENEWED = "rows", "gradient", "fresh"
"""Kinds, of which each has learning rates of its own that are tried."""
BETA = 0.5
"""Of the rivals that have one, as RSO has it."""
BETAS = (0.2, BETA, 1.0)
"""Of the exact tilt."""
SHARE = 8
"""RSO keeps one answer of so many, 8 of 64."""
LEAST = 1e-9
"""An answer is right if its reward is above 0."""
FRESH = 8
"""Parts of a round that the policy gradient is renewed after, where it is to be fresh."""


class Asked(NamedTuple):
    """What a selection is to know."""

    form: str
    samples: int
    seed: int


Select = Callable[[Scored, Asked], TiltedSelection]


class Method(NamedTuple):
    """One way to use answers."""

    key: str
    """For names of files."""
    title: str
    family: str
    """``"nothing"``, ``"exact"``, ``"rival"`` or ``"gradient"``; see `family_of`."""
    kind: str = ROWS
    select: Select | None = None
    """None: all answers of a gradient, or demonstrations."""
    beta: float | None = None
    """Of the tilted law that it is meant to train on."""
    parts: int = 1
    """Of a round, each with answers of the policy as it then is."""
    rejects: bool = False
    """Whether answers are accepted by their ratio, before each step."""


def _exact(beta: float) -> Select:
    def select(rows: Scored, asked: Asked) -> TiltedSelection:
        bound = 1.0 if asked.form == "bounded" else None
        return tilt(
            rows.rewards, beta, form=asked.form, bound=bound, seed=asked.seed,
            groups=rows.groups, ids=rows.ids,
        )  # fmt: skip

    return select


def _best(rows: Scored, asked: Asked) -> TiltedSelection:
    return top_k(rows.rewards, 1, groups=rows.groups, ids=rows.ids)


def _right(rows: Scored, asked: Asked) -> TiltedSelection:
    return threshold(rows.rewards, LEAST, groups=rows.groups)


def _rso(rows: Scored, asked: Asked) -> TiltedSelection:
    return rso(
        rows.rewards, BETA, num=max(1, asked.samples // SHARE), answers=rows.answers,
        seed=asked.seed, groups=rows.groups, ids=rows.ids,
    )  # fmt: skip


def _soft(rows: Scored, asked: Asked) -> TiltedSelection:
    return soft_best_of_n(rows.rewards, BETA, seed=asked.seed, groups=rows.groups, ids=rows.ids)


def _weighted(rows: Scored, asked: Asked) -> TiltedSelection:
    return weights(rows.rewards, BETA, groups=rows.groups)


METHODS = (
    Method("sft", "SFT alone", "nothing"),
    Method("raft", "RAFT, best of K", "rival", select=_best),
    Method("rft", "RFT, all right", "exact", select=_right),
    *(
        Method(f"tilt-{beta:g}", f"exact tilt, β {beta:g}", "exact", select=_exact(beta), beta=beta)
        for beta in BETAS
    ),
    Method("rso", f"RSO, β {BETA:g}", "rival", select=_rso, beta=BETA),
    Method("soft", f"soft best of n, β {BETA:g}", "rival", select=_soft, beta=BETA),
    Method("weights", f"weights, β {BETA:g}", "rival", select=_weighted, beta=BETA),
    Method("gradient", "policy gradient", "gradient", GRADIENT),
    Method(
        "gradient-accepted", "policy gradient, off-policy rejection", "gradient", GRADIENT,
        rejects=True,
    ),
    Method("gradient-fresh", "policy gradient, fresh answers", "gradient", RENEWED, parts=FRESH),
)  # fmt: skip
"""In the order of the report."""
NAMED = {method.key: method for method in METHODS}


def family_of(key: str, form: str) -> str:
    """Return a method's family on a task of a form.

    With verifiers RFT is the exact tilt of β = 0; with graded rewards a threshold, r > 0, which is
    no tilt of them.
    """
    return "rival" if key == "rft" and form != "verifier" else NAMED[key].family
