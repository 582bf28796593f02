"""What a backend's decisions must be: the float64 reference's, on the same uniforms."""

import torch

from rskernels.kernels import reference
from rskernels.law.philox import row_uniforms
from rskernels.law.streams import Stream

from .backends import backend_of


def assert_lawful(backend, logits, targets, density, M=1.0, **law):
    """Compare a backend's decisions with the reference's, and return them."""
    got = backend.decide(logits, targets, density, M, **law)
    want = backend_of("reference").decide(logits, targets, density, M, **law)
    is_wide = logits.dtype == torch.float64
    for name in ("log_prob", "log_ratio"):
        assert getattr(got, name).shape == getattr(want, name).shape
        if backend.name != "reference":
            assert getattr(got, name).dtype == (torch.float64 if is_wide else torch.float32)
    assert got.mask.dtype == torch.bool
    assert not (got.log_prob > 0).any()

    # A difference of logarithms is as exact as the larger of the two.
    finite = torch.where(want.log_prob.isfinite(), want.log_prob.abs(), 0.0)
    size = finite + torch.where(want.log_ratio.isfinite(), want.log_ratio.abs(), 0.0)
    slack = 1e-12 + 1e-14 * size if is_wide else 1e-5 + 5e-7 * size
    _assert_near(got.log_prob, want.log_prob, slack, "log_prob")
    _assert_near(got.log_ratio, want.log_ratio, slack, "log_ratio")

    # The dense form takes log u and log M in the precision of its logits.
    rounding = 1e-6 if targets is None and not is_wide else 1e-14
    log_M = reference.natural_log(M, law.get("log_space", False), want.log_prob)
    _assert_flips_explained(got, want, log_M, _log_uniforms(want, targets, law), rounding)
    mask = backend.mask(logits, targets, density, M, **law)
    assert torch.equal(mask, got.mask)

    valid = ~got.log_ratio.isnan()
    log_r = torch.where(valid, got.log_ratio.double() - log_M, -torch.inf)
    accepted, violations, invalid, ignored = got.counts.tolist()
    assert accepted == got.mask.sum()
    near = 0.0 if rounding < 1e-6 else rounding * (1 + log_M.abs())
    assert (log_r > near).sum() <= violations <= (log_r > -near).sum()
    assert (invalid, ignored) == tuple(want.counts[2:].tolist())
    excess = torch.stack([(log_r.exp() - 1).clamp(min=0).sum(), log_r.exp().sum()])
    if rounding < 1e-6 or not (log_r > 80).any():
        torch.testing.assert_close(got.excess, excess, rtol=1e-4, atol=1e-6)
    else:
        # Beyond float32, in which the dense form sums: only that it is huge is told.
        assert (got.excess > 1e30).all()
    return got


def _assert_near(got, want, slack, name):
    same = (got == want) | (got.isnan() & want.isnan())
    near = same | ((got.double() - want).abs() <= slack)
    assert near.all(), f"{name}: {got[~near][:5]} for {want[~near][:5]}"


def _log_uniforms(want, targets, law):
    rows = want.mask.numel() if targets is not None else want.mask.shape[:-1].numel()
    rows = law.get("row_offset", 0) + torch.arange(rows)
    columns = 0 if targets is not None else torch.arange(want.mask.shape[-1])
    rows = rows if targets is not None else rows[:, None]
    u = row_uniforms(rows, columns, law.get("seed", 0), Stream.ACCEPT)
    return u.double().log().view(want.mask.shape)


def _assert_flips_explained(got, want, log_M, log_u, rounding):
    """Where a decision differs, u lies between the two acceptance ratios."""
    flipped = got.mask != want.mask
    ratios = torch.stack([got.log_ratio.double() - log_M, want.log_ratio - log_M])
    room = rounding * (1 + log_u.abs() + log_M.abs())
    between = (ratios.amin(0) - room <= log_u) & (log_u <= ratios.amax(0) + room)
    assert between[flipped].all(), f"{int((flipped & ~between).sum())} unexplained decisions"
