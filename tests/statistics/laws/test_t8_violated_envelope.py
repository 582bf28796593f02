"""T8: where the target exceeds M q the ratio is capped at 1, and the excess is reported.

q is uniform on 64 cells, w = p/q is 2.5 on 16 of them and 0.5 on 48, and M = 2: the excess mass is
1/8, the acceptance 7/16, and 4/7 of what is accepted is heavy, not the 5/8 of the target.
"""

import pytest
import torch

from ..forms import row_blocks
from ..intervals import assert_inside, binomial

M, HEAVY, LIGHT = 2.0, 2.5, 0.5
CELLS, WIDTH = 64, 1 << 12


def check_violated(subject, seed, form="target", draws=1 << 18):
    """Sensitive to the cap at 1, and to what is counted and summed."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(CELLS, (draws,), generator=generator)
    is_heavy = cells < CELLS // 4
    w = torch.where(is_heavy, HEAVY, LIGHT)
    if form == "ratios":
        seen = subject.decide_ratios(w.log(), M, seed=seed)
        assert_violated(seen.mask, seen.counts, seen.excess, is_heavy)
        return
    # In the dense form every entry is a proposal, and the cell that it stands for is drawn.
    width = CELLS if form == "target" else WIDTH
    targets = cells if form == "target" else None
    p_hat = (w if form == "target" else w.view(-1, WIDTH)) / width
    parts = [
        subject.decide(
            torch.zeros(width).expand(len(p_hat[rows]), -1),
            None if targets is None else targets[rows],
            p_hat[rows],
            M,
            seed=seed,
            row_offset=rows.start,
        )
        for rows in row_blocks(len(p_hat), width)
    ]
    mask = torch.cat([seen.mask.flatten() for seen in parts])
    counts, excess = (sum(getattr(seen, name) for seen in parts) for name in ("counts", "excess"))
    assert_violated(mask, counts, excess, is_heavy)


def assert_violated(mask, counts, excess, is_heavy):
    draws = len(mask)
    accepted, violations, invalid, ignored = counts.tolist()
    assert accepted == mask.sum(), f"T8: {accepted} counted, {mask.sum()} in the mask"
    assert violations == is_heavy.sum(), f"T8: {violations} counted of {is_heavy.sum()}"
    assert (invalid, ignored) == (0, 0), f"T8: {invalid} invalid, {ignored} ignored"
    assert_inside("T8 accepted", accepted, binomial(draws, 7 / 16))
    assert_inside("T8 violations", violations, binomial(draws, 1 / 4))
    first = is_heavy[mask][: draws * 1_000_000 >> 22]
    assert_inside("T8 heavy", first.sum(), binomial(len(first), 4 / 7))
    # Of w/M: 1/4 above 1 for each heavy draw, of a sum that the light ones share.
    share = violations * 0.25 / (violations * 1.25 + (draws - violations) * 0.25)
    excess, mass = excess.tolist()
    assert excess / mass == pytest.approx(share, rel=1e-5), f"T8: excess mass {excess / mass}"


@pytest.mark.parametrize("form", ["target", "dense", "ratios"])
def test_t8_violated_envelope(subject, size, seed, form):
    slow = {"target": 1 << 7, "dense": 1 << 18, "ratios": 1 << 16}[form]
    check_violated(subject, seed, form, size(1 << 22, reference=1 << 18, interpreted=slow))
