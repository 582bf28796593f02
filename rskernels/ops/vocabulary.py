"""Operations on logits whose vocabulary is cut over ranks: every rank returns the same."""

from __future__ import annotations

import torch
from torch import Tensor

from rskernels._torch import Call, product_fields, refuse_tangents, vocabulary
from rskernels._torch.fast_path import refuse_in_graph
from rskernels._torch.transforms import refuse_transforms
from rskernels.law.decision import Law
from rskernels.law.numbers import IGNORED, INVALID
from rskernels.ops.acceptance import Acceptance
from rskernels.ops.linear import NO_ORDER_OF_CUT, LinearLogits
from rskernels.ops.ratios import bernoulli, rounded_log_M


def decide_cut(logits: LinearLogits, call: Call, ids: Tensor | None, is_live: bool) -> Acceptance:
    """Decide rows whose vocabulary is cut, by a call that ``bind`` has made; one collective.

    Each row is decided by the draw of its number or, where given, of its id. log_prob has a
    gradient if it ``is_live``.
    """
    _refuse("a decision about LinearLogits with a group", logits, is_live)
    _, targets, law, *reading = call.arguments
    if reading and reading[1] is not None:
        raise ValueError(NO_ORDER_OF_CUT)
    seed = law.seed
    if not isinstance(seed, Tensor):
        seed = torch.tensor([seed], dtype=torch.int64, device=targets.device)
    softmax = law.temperature, law.ignore_index
    log_prob, exact, seed = _log_prob(logits, targets, *softmax, seed, is_live)
    ratio = _log_ratio(exact, law).to(log_prob.dtype)
    log_M = rounded_log_M(law.M, law.log_space, ratio)
    decided = bernoulli(ratio, log_M, log_space=True, seed=seed, row_offset=law.row_offset, ids=ids)
    # A ratio of NaN left them out.
    ignored = (targets == law.ignore_index).sum()
    counts = decided.counts.clone()
    counts[INVALID] -= ignored
    counts[IGNORED] += ignored
    return decided._replace(log_prob=log_prob, counts=counts)


def log_prob_cut(
    logits: LinearLogits, targets: Tensor, temperature: Tensor | float, ignore_index: int
) -> Tensor:
    """Return log q of the targets of rows whose vocabulary is cut; one collective."""
    _refuse("target_log_prob of LinearLogits with a group", logits)
    seed = torch.zeros(1, dtype=torch.int64, device=targets.device)
    log_prob, _, _ = _log_prob(logits, targets, temperature, ignore_index, seed)
    return log_prob.masked_fill(targets == ignore_index, 0.0)


def _log_prob(
    logits: LinearLogits,
    targets: Tensor,
    temperature: Tensor | float,
    ignore_index: int,
    seed: Tensor,
    is_live: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log q of the targets, which has a gradient if live, the same in float64, and the seed.

    Raises
    ------
    IndexError
        If a CPU target is a column of no rank or of two, and not ``ignore_index``.
    """
    rows, product = targets.reshape(-1).long(), logits.product()
    columns, is_ignored = rows - logits.offset, rows == ignore_index
    is_own = (columns >= 0) & (columns < len(product.weight))
    own = torch.where(is_own, columns, vocabulary.OTHER)
    own = own.masked_fill(is_ignored, vocabulary.IGNORED)
    if isinstance(temperature, Tensor):
        temperature = temperature.expand(targets.shape).reshape(-1)
    fields = product_fields(product)
    if not is_live:
        fields = tuple(part.detach() if isinstance(part, Tensor) else part for part in fields)
    log_prob, exact, is_known, seed = vocabulary.CutLogProb.apply(  # type: ignore[no-untyped-call]
        *fields, own, temperature, seed, logits.group
    )
    if targets.device.type == "cpu":
        _check_targets(rows, is_known | is_ignored, ignore_index)
    return log_prob.view(targets.shape), exact.view(targets.shape), seed


def _refuse(what: str, logits: LinearLogits, is_live: bool = True) -> None:
    """Raise before a collective of what has no values, or derivatives that there are not."""
    refuse_in_graph(what)
    refuse_transforms("LinearLogits with a group")
    if is_live:
        refuse_tangents(*logits.tensors().values())
    if logits.device.type == "meta":
        raise ValueError(
            "hidden is on meta; meta tensors have no values for a group to exchange, give CPU or "
            "CUDA tensors, or no group"
        )


def _check_targets(targets: Tensor, is_known: Tensor, ignore_index: int) -> None:
    if not bool(is_known.all()):
        row = int(is_known.logical_not().nonzero()[0])
        raise IndexError(
            f"targets must be columns of one rank of the group or ignore_index ({ignore_index}), "
            f"and the same on every rank, got {targets[row].item()} in row {row}"
        )


def _log_ratio(log_prob: Tensor, law: Law) -> Tensor:
    """Return log p - log q; NaN where it is invalid."""
    density = torch.as_tensor(law.density, dtype=torch.float64, device=log_prob.device)
    log_density = density if law.log_space else density.log()
    log_p, log_q = (log_prob, log_density) if law.model_is_target else (log_density, log_prob)
    ratio = torch.where(log_p == -torch.inf, -torch.inf, log_p - log_q)
    is_valid = (log_density < torch.inf) & (log_prob <= 0.0)
    return torch.where(is_valid, ratio, torch.nan)
