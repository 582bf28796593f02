"""What a selection returns: which rows are kept, by what law, and what is known of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rskernels.select.forms import GIVEN, LEARNT, NONE, PROVED, Weighted
from rskernels.select.rows import Rows
from rskernels.select.sums import Sums, added, sums_of, weighted_mean

BOUND, ESTIMATE = "bound", "estimate"
OF_ROWS, OF_PILOT = "of rows", "of pilot"


# Tensors cannot be compared as one, nor hashed.
@dataclass(frozen=True, eq=False)
class TiltedSelection:
    """Rows that were kept, and numbers of each group and of all rows.

    The numbers by name, w a row's weight and M the constant that it is divided by:

    ``seen``, ``accepted``, ``violations``, ``invalid``, ``unknown``
        How many rows: all; kept; with w above M; with a reward that the form does not take; with no
        M or pilot for their group. Those of the last two are rejected.
    ``right``
        Of the form "verifier": how many rows are right.
    ``acceptance``, ``expected_acceptance``
        The share kept of the rows that were decided, and the mean of min(1, w/M) over them.
    ``delta``
        Excess mass, sum of (w/M - 1)+ over sum of w/M. With the rows, each as likely as another, in
        the place of the policy, it bounds the total variation between the tilted law and that of
        what is kept; ``delta_is`` says whether M was known before them.
    ``kl``
        Kullback-Leibler divergence of the tilted law from the untilted one, in nats, with the rows
        or the pilot of a group in the place of the policy; ``kl_is`` says which. NaN where the
        tilted law does not exist.
    ``ess``
        (sum w)^2 / sum w^2: how many rows importance weighting would be worth.

    ``overall`` has them for all rows: ``delta`` and ``ess`` by the w/M of all, ``kl`` as the mean
    over groups, weighted by their rows. It also has ``groups``, ``groups_without_accepted`` and, of
    a verifier, ``groups_without_right``, the prompts without a right answer. Of "best_of" it has
    ``kl_bound`` = log n - (n - 1)/n, which ``kl`` reaches where no two rewards are equal and the
    pilot is large.

    Attributes
    ----------
    form : str
        The form of the tilt, or the rule's name.
    mask : Tensor
        bool ``[N]``: which rows are kept.
    log_ratio : Tensor
        float64 ``[N]``: log w - log M. NaN where there is none.
    log_weights : Tensor
        float64 ``[N]``: the log of the weight of a row in a mean over what is kept. It is 0, or
        with ``control`` log max(1, w/M), which makes such means right for any M; -inf where a row
        is not kept.
    M_is : {"proved", "given", "learnt", "none"}
        Whether M bounds w by the form, by what the caller says, or was learnt.
    delta_is : {"bound", "estimate"}
        "bound" where M was proved or given. Of an M that was learnt it is an estimate, from the
        ratios seen.
    kl_is : {"of rows", "of pilot"}
        What stands for the policy in ``kl``: the rows of a group, each as likely as another, or its
        pilot. For that law ``kl`` is exact, for the policy an estimate, which is too small where a
        group has few rows: of K rows it is at most log K. A group without a row that the tilt can
        keep, as one without a right answer at beta = 0, is left out of the mean.
    group_ids : Tensor
        int64 ``[G]``: the groups, rising.
    groups : mapping of str to Tensor
        By name, ``[G]``, int64 for counts, else float64.
    overall : mapping of str to float
        By name.
    note : str
        What to know about the law of what is kept, where that is not the tilted one.
    """

    form: str
    mask: Tensor
    log_ratio: Tensor
    log_weights: Tensor
    M_is: str
    delta_is: str
    kl_is: str
    group_ids: Tensor
    groups: Mapping[str, Tensor] = field(repr=False)
    overall: Mapping[str, float]
    note: str = ""

    @property
    def is_exact(self) -> bool:
        """Whether what is kept has the form's law: M came before the rows, and bounds them all.

        The law of "quantile" and "best_of" is by the quantiles of the pilot, not of the policy.
        """
        return self.M_is in (PROVED, GIVEN) and not self.overall["violations"]

    def to_dict(self, *, groups: bool = True) -> dict[str, Any]:
        """Return numbers, strings and lists that JSON takes; None stands for NaN and infinities.

        Parameters
        ----------
        groups : bool
            Whether to include the lists with an entry a group.
        """
        record: dict[str, Any] = {
            "form": self.form, "M_is": self.M_is, "delta_is": self.delta_is, "kl_is": self.kl_is,
            "note": self.note, "overall": {k: _json(v) for k, v in self.overall.items()},
        }  # fmt: skip
        if groups:
            lists = {name: [_json(v) for v in of.tolist()] for name, of in self.groups.items()}
            record["groups"] = {"id": self.group_ids.tolist(), **lists}
        return record


def selection_of(
    form: str,
    rows: Rows,
    mask: Tensor,
    weighted: Weighted,
    log_weights: Tensor,
    *,
    base: Sums | None = None,
    kl_is: str = OF_ROWS,
    note: str = "",
) -> TiltedSelection:
    """Return a selection of rows that are decided.

    ``base`` has the divergence where the rows do not stand for the policy.
    """
    count = len(rows.group_ids)
    known = ~weighted.log_ratio.isnan()
    each = {
        "seen": torch.ones_like(mask),
        "accepted": mask,
        "violations": known & (weighted.log_ratio > 0.0) & (weighted.M_is != NONE),
        "invalid": weighted.invalid,
        "unknown": ~known & ~weighted.invalid,
    }
    if form == "verifier":
        each["right"] = rows.rewards == 1.0
    groups = {name: added(which.long(), rows.group, count) for name, which in each.items()}
    overall: dict[str, float] = {name: int(of.sum()) for name, of in groups.items()}
    decided = added((known | mask).long(), rows.group, count)
    has_M, has_weights = weighted.M_is != NONE, weighted.has_weights
    sums = sums_of(weighted.log_ratio, rows.group, count)
    whole = sums_of(weighted.log_ratio, torch.zeros_like(rows.group), 1)
    nothing = torch.full_like(sums.kl, math.nan)
    kl = (base or sums).kl if has_weights else nothing
    groups["acceptance"] = groups["accepted"] / decided
    groups["expected_acceptance"] = sums.expected_acceptance if has_M else nothing
    groups["delta"] = sums.delta if has_M else nothing
    groups["kl"], groups["ess"] = kl, sums.ess if has_weights else nothing
    total = int(decided.sum())
    overall["acceptance"] = overall["accepted"] / total if total else math.nan
    overall["expected_acceptance"] = float(whole.expected_acceptance) if has_M else math.nan
    overall["delta"] = float(whole.delta) if has_M else math.nan
    overall["kl"] = weighted_mean(kl, decided)
    overall["ess"] = float(whole.ess) if has_weights else math.nan
    overall["groups"] = count
    overall["groups_without_accepted"] = int((groups["accepted"] == 0).sum())
    if form == "verifier":
        overall["groups_without_right"] = int((groups["right"] == 0).sum())
    kept = torch.where(mask, log_weights, -math.inf)
    return TiltedSelection(
        form=form, mask=mask, log_ratio=weighted.log_ratio, log_weights=kept, M_is=weighted.M_is,
        delta_is=ESTIMATE if weighted.M_is in (LEARNT, NONE) else BOUND, kl_is=kl_is,
        group_ids=rows.group_ids, groups=groups, overall=overall, note=note,
    )  # fmt: skip


def _json(value: float) -> float | int | None:
    return value if math.isfinite(value) else None
