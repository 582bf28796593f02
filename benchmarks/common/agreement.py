"""What is timed is also right: masks against the float64 reference, before any timing."""

from __future__ import annotations

import torch
from torch import Tensor

import rskernels
from benchmarks.common.cases import Case, Inputs
from rskernels.kernels import reference
from rskernels.law.decision import Law
from rskernels.law.philox import row_uniforms

ROWS = 32  # checked at each end of the batch
SEED = 20

# Decisions this close to log r = log u may fall either way in float32.
TOLERANCE = 1e-4


def check(case: Case, inputs: Inputs) -> None:
    """Raise if a mask differs from the reference's."""
    if case.operation not in ("accept_mask", "verify_mask"):
        return
    logits, density, M, targets = inputs
    call = getattr(rskernels, case.operation)
    mask = call(logits, density, M, targets=targets, seed=SEED)
    for rows in (slice(0, ROWS), slice(max(0, case.rows - ROWS), case.rows)):
        expected, certain = _reference(case, inputs, rows)
        wrong = ((mask[rows] != expected) & certain).sum().item()
        if wrong:
            raise AssertionError(f"{case}: {wrong} decisions differ from the float64 reference")


def _reference(case: Case, inputs: Inputs, rows: slice) -> tuple[Tensor, Tensor]:
    """Return the reference's decisions of some rows, and which are not within rounding."""
    logits, density, M, targets = inputs
    mask, _, log_ratio, _, _ = reference.decide(
        logits[rows],
        targets[rows],
        Law(density[rows], M, SEED, rows.start, model_is_target=case.operation == "verify_mask"),
    )
    ids = torch.arange(rows.start, rows.stop, device=logits.device)[: mask.numel()]
    log_u = row_uniforms(ids, 0, SEED, 0).double().log()
    margin = log_ratio - torch.tensor(M, dtype=torch.float64).log() - log_u
    return mask, margin.abs() > TOLERANCE
