"""Which answers of a round are trained on: `rskernels.select`, with a configuration's options."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rskernels.envelope import Envelope
from rskernels.language.config import LanguageConfig
from rskernels.select import (
    TiltedSelection,
    rso,
    soft_best_of_n,
    threshold,
    tilt,
    top_k,
    weights,
)

KINDS = {"train": 0, "test": 1, "prompt": 2}
ROUND_BITS, PROMPT_BITS, SAMPLE_BITS = 14, 27, 20


class Scored(NamedTuple):
    """Answers with rewards, of all processes."""

    rewards: Tensor
    """float64 ``[N]``."""
    groups: Tensor
    """int64 ``[N]``: the prompt's place in the task."""
    ids: Tensor
    """int64 ``[N]``, made by `answer_ids`."""
    answers: Tensor
    """int64 ``[N]``: equal where two answers to a prompt are the same tokens."""


def answer_ids(kind: str, number: int, prompts: Tensor, samples: Tensor) -> Tensor:
    """Return ids of 63 bits that kind, round, place of the prompt and sample number determine.

    Parameters
    ----------
    kind : {"train", "test", "prompt"}
        What they are of.
    number : int
        The round.
    prompts, samples : Tensor
        int64, broadcast.
    """
    first = (KINDS[kind] << ROUND_BITS | number) << PROMPT_BITS
    return (first + prompts << SAMPLE_BITS) + samples


def choose(
    config: LanguageConfig, rows: Scored, pilot: Scored | None, envelope: Envelope | None
) -> TiltedSelection:
    """Select answers by the form of a configuration.

    Parameters
    ----------
    config : LanguageConfig
        Form and what it needs.
    rows : Scored
        Answers to decide. Each is decided by the seed and its id, so that neither their order nor
        which process generated them changes what is kept.
    pilot : Scored, optional
        Other answers to the same prompts, of "quantile", "best_of" and "learnt".
    envelope : Envelope, optional
        For "learnt": has M of each prompt of the task, learnt from the pilot and earlier rounds.
    """
    form, beta, seed = config.form, config.beta, config.seed
    rewards, groups, ids = rows.rewards, rows.groups, rows.ids
    if form == "rft":
        return tilt(rewards, 0.0, form="verifier", seed=seed, groups=groups, ids=ids)
    if form == "raft":
        return top_k(rewards, 1, groups=groups, ids=ids)
    if form == "top_k":
        return top_k(rewards, config.k or 1, groups=groups, ids=ids)
    if form in ("threshold", "all"):
        least = -math.inf if form == "all" or config.least is None else config.least
        return threshold(rewards, least, groups=groups)
    if form == "learnt":
        return tilt(rewards, beta, form=form, envelope=envelope, seed=seed, groups=groups, ids=ids)
    if form in ("quantile", "best_of"):
        assert pilot is not None
        return tilt(
            rewards, beta, form=form, n=config.n, seed=seed, pilot=pilot.rewards,
            pilot_groups=pilot.groups, groups=groups, ids=ids,
        )  # fmt: skip
    if form in ("verifier", "bounded"):
        return tilt(rewards, beta, form=form, bound=config.bound, seed=seed, groups=groups, ids=ids)
    assert beta is not None
    if form == "weights":
        return weights(rewards, beta, groups=groups)
    if form == "soft_best_of_n":
        return soft_best_of_n(rewards, beta, seed=seed, groups=groups, ids=ids)
    return rso(
        rewards, beta, num=config.num or 1, answers=rows.answers, seed=seed, groups=groups, ids=ids
    )


def same_answers(groups: list[int], tokens: list[list[int]]) -> Tensor:
    """Return a number for each answer, equal where two answers to a prompt are the same tokens."""
    numbers: dict[tuple[int, tuple[int, ...]], int] = {}
    keys = ((group, tuple(row)) for group, row in zip(groups, tokens, strict=True))
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys], dtype=torch.int64)
