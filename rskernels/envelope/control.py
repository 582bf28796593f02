"""What makes up for rows above M: rejection-control weights, and thinning to a larger M.

References
----------
Liu, Chen & Wong, "Rejection control and sequential importance sampling", JASA 93, 1998.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rskernels import _core
from rskernels.envelope.rows import Rows, as_tensor, check_rows
from rskernels.ops.arguments import check_floating, density_argument

if TYPE_CHECKING:
    from rskernels.envelope.envelope import Envelope

# Acceptance draws from stream 0; thinning what it accepted needs draws of its own.
THIN_STREAM = 1


def control_weights(envelope: Envelope, log_ratio: Rows, groups: Rows | None) -> Tensor:
    """Return max(w, M)/M of rows that are yet to be taken in, float64.

    NaN for invalid rows, and where there is no M, or none above 0.
    """
    ratios = as_tensor(log_ratio).double()
    ids = None if groups is None else as_tensor(groups).to(ratios.device)
    if envelope.policy == "leave_one_out":
        log_M = envelope.log_M(ids, log_ratio=ratios)
    else:
        try:
            log_M = envelope.log_M(ids, device=ratios.device if ids is None else None)
        except _core.NoFiniteM:
            # Of some groups: they have NaN in the report.
            known = envelope.report().groups["log_M"].to(ratios.device)
            log_M = known[0] if ids is None else known[ids.long()]
    weights = (ratios - log_M).clamp(min=0.0).exp()
    return torch.where((ratios < math.inf) & (log_M > -math.inf), weights, math.nan)


def thin(
    envelope: Envelope,
    log_ratio: Tensor,
    log_M: Tensor | float,
    groups: Tensor | None,
    **draws: Any,
) -> Tensor:
    """Keep acceptances with min(1, w/M now) / min(1, w/M then); ``log_M`` is that of then."""
    from rskernels import ops

    check_floating("log_ratio", log_ratio)
    shape = check_rows(log_ratio, groups, envelope.groups)
    # What log_M without rows returns is on the host.
    log_M = log_M.to(log_ratio.device) if isinstance(log_M, Tensor) else log_M
    log_M = density_argument("log_M", log_M, log_ratio.device, torch.Size(shape), True)
    ratios = log_ratio.detach().double()
    now = (ratios - envelope.log_M(groups).to(ratios.device)).clamp(max=0.0)
    then = (ratios - log_M).clamp(max=0.0)
    return ops.bernoulli_mask(now - then, stream=THIN_STREAM, **draws)
