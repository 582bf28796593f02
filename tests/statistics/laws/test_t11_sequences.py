"""T11: sequences that are accepted follow the target, and prefixes end where they should."""

import itertools
import math

import pytest
import torch
from scipy import stats

from ..intervals import CHANCE, assert_inside, binomial
from .test_t3_categorical import draw_cells

# How much is drawn: (proposals, tokens of the vocabulary, tokens of a sequence).
FULL, REFERENCE, INTERPRETED = (1_000_000, 8, 4), (1 << 13, 4, 3), (1 << 9, 2, 3)
PADDING = 2


class Chain:
    """Two laws of sequences, in which each token depends on the one before; all enumerated.

    The ratio of a token goes up to about 3, so that clamping it at 2 is felt.
    """

    def __init__(self, tokens, length, number=0):
        generator = torch.Generator().manual_seed(number)
        shape = (tokens + 1, tokens)
        q = torch.randn(shape, generator=generator, dtype=torch.float64).mul(0.3).log_softmax(-1)
        tilt = torch.randn(shape, generator=generator, dtype=torch.float64).mul(0.4)
        p = (q + tilt).log_softmax(-1)
        cells = torch.tensor(list(itertools.product(range(tokens), repeat=length)))
        before = torch.cat([cells.new_full((len(cells), 1), tokens), cells[:, :-1]], 1)
        self.q = q[before, cells].sum(1).exp()
        self.p = p[before, cells].sum(1).exp()
        self.log_ratio = (p - q)[before, cells]
        self.M = self.log_ratio.sum(1).max().exp().item()


def laid_out(log_ratio, seed):
    """Return log ratios among padding of other numbers, and where they are."""
    generator = torch.Generator().manual_seed(seed)
    B, length = log_ratio.shape
    padded = torch.rand(B, length + PADDING, generator=generator, dtype=torch.float64)
    mask = torch.rand(B, length + PADDING, generator=generator).argsort(1) < length
    padded[mask] = log_ratio.reshape(-1)
    return padded.float(), mask


def assert_follows(cells, p):
    """Fail unless the cells that were accepted follow their law, by a chi-squared test."""
    expected = p * len(cells)
    counts = cells.bincount(minlength=len(p)).double()
    # Cells of less than five have too few for the law of the statistic: they count as one.
    few = expected < 5
    pairs = [(counts[~few], expected[~few])]
    if few.any():
        pairs.append((counts[few].sum()[None], expected[few].sum()[None]))
    statistic = sum(((c - e).square() / e).sum() for c, e in pairs).item()
    degrees = sum(len(c) for c, _ in pairs) - 1
    assert statistic <= stats.chi2.isf(CHANCE, degrees), f"T11: {statistic} of {degrees}"


def check_sequences(subject, seed, proposals=1 << 13, tokens=4, length=3, *, groups=1):
    """Sensitive to what a sequence's ratio is, to its draw, and to what is no token of it."""
    chains = [Chain(tokens, length, group) for group in range(groups)]
    group = torch.arange(proposals) % groups
    cells = torch.empty(proposals, dtype=torch.int64)
    ratios = torch.empty(proposals, length, dtype=torch.float64)
    for at, chain in enumerate(chains):
        cells[group == at] = draw_cells(chain.q, int((group == at).sum()), seed + at)
        ratios[group == at] = chain.log_ratio[cells[group == at]]
    log_ratio, mask = laid_out(ratios, seed)
    # float32 ratios may add up to more.
    M = torch.tensor([chain.M for chain in chains], dtype=torch.float64) * (1 + 1e-6)
    M = M[0].item() if groups == 1 else M[group]
    # In two parts, whose ids follow each other.
    half = proposals // 2
    seen = [
        subject.accept_sequences(
            log_ratio[part], M if groups == 1 else M[part], mask=mask[part], seed=seed,
            row_offset=part.start,
        )
        for part in (slice(0, half), slice(half, proposals))
    ]  # fmt: skip
    kept = torch.cat([part.mask for part in seen])
    for at, chain in enumerate(chains):
        of_group = kept & (group == at)
        share = binomial(int((group == at).sum()), 1 / chain.M)
        assert_inside("T11", of_group.sum(), share)
        assert_follows(cells[of_group], chain.p)
    # The second half has other draws than the first: sequences alike are not decided alike.
    again = subject.accept_sequences(
        log_ratio[:half], M if groups == 1 else M[:half], mask=mask[:half], seed=seed,
        row_offset=half,
    )  # fmt: skip
    r = 1 / chains[0].M if groups == 1 else sum(1 / chain.M for chain in chains) / groups
    assert (again.mask != seen[0].mask).sum() > half * r * (1 - r) / 2, "T11: draws are repeated"


@pytest.mark.parametrize("groups", [1, 3])
def test_t11_sequences(subject, size, seed, groups):
    drawn = size(FULL, reference=REFERENCE, interpreted=INTERPRETED)
    check_sequences(subject, seed, *drawn, groups=groups)


def check_prefixes(subject, seed, B=1 << 13, T=70, r=0.97):
    """Sensitive to the uniforms of tokens: each has its own, whatever lies between tokens."""
    mask = torch.rand(B, T + 30, generator=torch.Generator().manual_seed(seed)) < 0.7
    log_ratio = torch.full(mask.shape, math.log(r)).where(mask, torch.nan)
    lengths = subject.accept_prefix(log_ratio, mask=mask, seed=seed)
    tokens = mask.sum(1)
    # Of those that are not over, a share of r goes on at every token.
    for t in (0, 1, 7, 15, 16, 40, 63, 66):
        reached = (lengths >= t) & (tokens > t)
        interval = binomial(int(reached.sum()), r, tests=8)
        assert_inside("T11", (reached & (lengths > t)).sum(), interval)
    assert (lengths <= tokens).all()


def test_t11_prefixes(subject, size, seed):
    check_prefixes(subject, seed, size(1 << 18, reference=1 << 11, interpreted=1 << 6))


def check_prefix_ids(subject, seed, B=1 << 8):
    """Sensitive to ids that are not those given, whole and in their sequences' order."""
    log_ratio = torch.full((B, 8), math.log(0.8))
    order = torch.randperm(B, generator=torch.Generator().manual_seed(seed % 2**32))
    for offset in (0, 2**33):
        counted = subject.accept_prefix(log_ratio, seed=seed, row_offset=offset)
        named = subject.accept_prefix(log_ratio, seed=seed, ids=order + offset)
        assert torch.equal(named, counted[order]), (
            f"T11 ids: from {offset}, not as those that count"
        )
