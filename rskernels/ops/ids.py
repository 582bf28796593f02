"""Rows of logits decided by ids that are given: once they are read, their ratios are decided."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rskernels.ops.acceptance import Acceptance
from rskernels.ops.arguments import check_targets, ids_argument
from rskernels.ops.linear import LinearLogits
from rskernels.ops.ratios import bernoulli


def decide_by_ids(
    decide: Callable[..., Acceptance],
    logits: Tensor | LinearLogits,
    density: Tensor | float,
    M: Tensor | float | None,
    *,
    ids: Tensor,
    row_offset: int,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    targets: Tensor | None,
    temperature: Tensor | float,
    log_space: bool,
    ignore_index: int,
) -> Acceptance:
    """Decide rows by ``accept`` or ``verify``, each by the draw of its id.

    That is the draw of column 0 and stream 0, as it would be were the id its number.

    Raises
    ------
    TypeError, ValueError
        If there are no targets, and as ``decide`` and ``bernoulli``.
    """
    if targets is None:
        raise ValueError("ids are of rows with targets; entries of rows are numbered by row_offset")
    check_targets(targets, logits.shape[:-1], logits.device)
    ids_argument(ids, row_offset, logits.device, targets.shape)
    seen = decide(
        logits, density, M, targets=targets, temperature=temperature, log_space=log_space, seed=0,
        ignore_index=ignore_index,
    )  # fmt: skip
    second = bernoulli(
        seen.log_ratio, M, log_space=log_space, seed=seed, generator=generator,
        mask=targets != ignore_index, ids=ids,
    )  # fmt: skip
    return second._replace(log_prob=seen.log_prob)
