"""``tilt``: keep answers so that what is kept has the law of the policy tilted by a reward."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rskernels._torch.fast_path import refuse_in_graph
from rskernels.envelope import Envelope
from rskernels.law.seeds import check_seed
from rskernels.law.streams import Stream
from rskernels.ops import bernoulli_mask
from rskernels.select.forms import Options, check_options, weigh
from rskernels.select.pilot import Pilot
from rskernels.select.rows import Integers, Numbers, ids_of, rows_of
from rskernels.select.selection import OF_PILOT, OF_ROWS, TiltedSelection, selection_of
from rskernels.select.sums import Sums, sums_of

LARGEST_LOG_WEIGHT = 700.0  # float64 ends at exp(709.8)


def tilt(
    rewards: Numbers,
    beta: float | None = None,
    *,
    form: str,
    groups: Integers | None = None,
    ids: Integers | None = None,
    envelope: Envelope | None = None,
    bound: float | None = None,
    n: int | None = None,
    pilot: Numbers | None = None,
    pilot_groups: Integers | None = None,
    control: bool = False,
    seed: int | Tensor,
) -> TiltedSelection:
    r"""Keep answers that a policy pi gave, so that those kept follow pi(y|x) exp(r/beta) / Z(x).

    That law, the tilted one, maximises the mean reward less beta times the divergence from pi. An
    answer is kept with probability min(1, w/M), where w is its weight and M a constant of its
    prompt that is known before the rows are looked at. No M is ever taken from the rows that it
    decides: that would bias what is kept, and make it depend on which rows come together.

    - ``"verifier"``: rewards are 0 or 1. w = exp(r/beta), M = exp(1/beta): right answers are all
      kept, wrong ones with probability exp(-1/beta). beta = 0 keeps the right ones alone, which is
      rejection-sampling fine-tuning (RFT) and STaR. Exact.
    - ``"bounded"``: r is at most ``bound``. w = exp(r/beta), M = exp(bound/beta). Exact where the
      bound holds; a reward above it is a violation, and counted.
    - ``"quantile"``: r is replaced by its quantile u among the rewards of a pilot, which are other
      answers to the same prompt. So every prompt has the same acceptance, beta (1 - exp(-1/beta)),
      up to ties. With F(r) the share of the pilot's rewards that are at most r, and F(r-) the share
      below r, u = (F(r-) + F(r))/2. w = exp(u/beta), M = exp(1/beta). Exact for the tilt by that u,
      whatever the pilot; with a small pilot u is coarse.
    - ``"best_of"``: what is kept has the law of the best of ``n`` answers. With a = F(r-) and
      b = F(r), w = (b^n - a^n)/(b - a), which is the mean of n u^(n-1) over the quantiles u of
      equal rewards; it is n b^(n-1) for a reward that the pilot does not have. M = n. Exact for a
      policy that answers as the pilot does, with ties broken at random. For the policy itself it is
      off by as much as the pilot's F is, of the order of n over the root of the pilot's size.
      Answers below the whole pilot are not kept. It takes no ``beta``.
    - ``"learnt"``: w = exp(r/beta), M that of an ``envelope`` which has seen other rows, a pilot:
      ``envelope.update(rewards.double() / beta, groups)``, in float64, as here. An envelope of one
      group has one M for all. What is kept follows pi min(1, w/M), which is the tilted law only
      where M bounds w for every answer that the policy can give: the largest of a few answers to a
      prompt can leave out a third of the mass. With "max" of the very rows that are decided,
      ``delta`` is 0 by construction, whatever is lost.

    Parameters
    ----------
    rewards : Tensor, array or sequence
        r, ``[N]``, taken as float64. NaN and +inf are invalid, and so is with "verifier" whatever
        is not 0 or 1. -inf is the least reward there is.
    beta : float, optional
        Finite and above 0, in units of the reward ("quantile": of a quantile); with "verifier" it
        may be 0.
    form : {"verifier", "bounded", "quantile", "best_of", "learnt"}
        How w and M follow from the rewards.
    groups : Tensor, array or sequence, optional
        int64 or int32 ``[N]``, any numbers: which prompt each row answers. None: all the same. For
        an envelope of several groups, ids in ``[0, envelope.groups)``.
    ids : Tensor, array or sequence, optional
        int64 or int32 ``[N]``, any numbers that tell the rows apart, such as a column of the data
        or a hash of prompt and sample number. The draw follows from ``seed`` and the id alone
        (``Stream.SELECT``), so that neither order nor shards change what is kept. None: the places
        of the rows, which is for a single call on all of them.
    envelope : Envelope, optional
        For "learnt": any policy but "leave_one_out". It is read, and not updated.
    bound : float, optional
        For "bounded": the largest reward there can be.
    n : int, optional
        For "best_of": the n of best of n, at least 1.
    pilot, pilot_groups : Tensor, array or sequence, optional
        For "quantile" and "best_of": rewards ``[K]`` of other answers, and their groups where
        ``groups`` is given. Shards that are to decide alike need the same pilot.
    control : bool
        Whether rows above M get the weight w/M (rejection control: Liu, Chen & Wong, 1998): means
        with these weights are right for any M.
    seed : int or Tensor
        64 bits. The same seed and ids keep the same rows.

    Returns
    -------
    TiltedSelection
        On the device of the rewards. Its numbers are of the rows of this call.

    Raises
    ------
    TypeError, ValueError, IndexError
        If an argument is not as above or not for the form, or if two ids are equal.

    Notes
    -----
    With one M for all groups, groups with larger weights are kept more often: the law of prompts is
    then tilted by Z(x)/M. Within each group the law is the tilted one in any case.

    References
    ----------
    Yuan et al., "Scaling relationship on learning mathematical reasoning with large language
    models", 2023 (RFT); Zelikman et al., "STaR", 2022; Liu et al., "Statistical rejection sampling
    improves preference optimization", 2024; Beirami et al., "Theoretical guarantees on the
    best-of-n alignment policy", 2025.

    Examples
    --------
    >>> from rskernels.select import tilt
    >>> kept = tilt([1.0, 0.0, 0.0, 1.0], 0.0, form="verifier", groups=[7, 7, 8, 8], seed=0)
    >>> kept.mask
    tensor([ True, False, False,  True])
    >>> round(kept.overall["kl"], 4)  # log 2: half of these rows are right
    0.6931
    """
    refuse_in_graph("tilt")
    given = {"bound": bound, "n": n, "envelope": envelope, "pilot": pilot}
    beta = check_options(form, beta, given)
    seed = check_seed(seed)
    rows = rows_of(rewards, groups)
    names = ids_of(ids, rows.rewards)
    if pilot_groups is not None and pilot is None:
        raise ValueError("pilot_groups is given without a pilot")
    if groups is None and isinstance(envelope, Envelope) and envelope.groups > 1:
        raise ValueError(f"an envelope of {envelope.groups} groups needs the group of every row")
    of_pilot = None
    if pilot is not None:
        of_pilot = Pilot(pilot, pilot_groups, groups is not None, rows.rewards.device)
    of_form = Options(bound, n, envelope, of_pilot)
    weighted = weigh(form, rows.rewards, rows.groups, beta, of_form)
    mask = bernoulli_mask(weighted.log_ratio, seed=seed, stream=Stream.SELECT, ids=names)
    log_weights = torch.zeros_like(weighted.log_ratio)
    if control:
        log_weights = weighted.log_ratio.clamp(min=0.0, max=LARGEST_LOG_WEIGHT)
    base = None
    if weighted.base is not None and of_pilot is not None:
        base = _sums_of_groups(weighted.base[0], of_pilot, rows.group_ids)
    kl_is = OF_ROWS if base is None else OF_PILOT
    kept = selection_of(form, rows, mask, weighted, log_weights, base=base, kl_is=kl_is)
    if form == "best_of" and n is not None:
        return _with_bound(kept, n)
    return kept


def _sums_of_groups(log_ratio: Tensor, pilot: Pilot, group_ids: Tensor) -> Sums:
    """Return the sums over the pilot, of the groups of the rows."""
    sums = sums_of(log_ratio, pilot.group, len(pilot.group_ids))
    places, is_known = pilot.places_of(group_ids)
    return Sums(*(torch.where(is_known, of[places], math.nan) for of in sums))


def _with_bound(kept: TiltedSelection, n: int) -> TiltedSelection:
    """Return a selection with ``kl_bound``, the most that the divergence of best of n can be."""
    fields: dict[str, Any] = dict(vars(kept))
    fields["overall"] = {**kept.overall, "kl_bound": math.log(n) - (n - 1) / n}
    return TiltedSelection(**fields)
