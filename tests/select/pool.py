"""Two hundred answers to one prompt, whose laws are known by enumeration."""

import torch
from scipy import stats

from rskernels import Envelope
from rskernels.select import tilt

OUTPUTS, PROPOSALS = 200, 1_000_000
BETA, N_BEST = 0.7, 4
CHANCE = 5e-8

# Zipf's law in whole numbers, so that a pilot can hold it exactly.
COUNTS = (1000.0 / torch.arange(1, OUTPUTS + 1)).round().long()
BASE = COUNTS.double() / COUNTS.sum()
_generator = torch.Generator().manual_seed(16)
# Of one decimal: many answers have the same reward, and the frequent ones come often.
REWARDS = torch.randn(OUTPUTS, generator=_generator, dtype=torch.float64).mul(10).round().div(10)
RIGHT = (REWARDS > 0.4).double()
PILOT = REWARDS.repeat_interleave(COUNTS)


def proposals(count=PROPOSALS, seed=0):
    """Return draws from the base law, int64, and an id of 64 bits for each."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(BASE, count, replacement=True, generator=generator)
    return drawn, torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator)


def learnt():
    """Return an envelope that a pilot of its own has taught."""
    envelope = Envelope("max")
    envelope.update(PILOT / BETA)
    return envelope


def select(form, drawn, ids, seed=5):
    """Return which of the draws are kept."""
    options = {
        "verifier": {"beta": BETA},
        "bounded": {"beta": BETA, "bound": 3.0},
        "quantile": {"beta": BETA, "pilot": PILOT},
        "best_of": {"n": N_BEST, "pilot": PILOT},
        "learnt": {"beta": BETA, "envelope": learnt()},
    }[form]
    rewards = RIGHT if form == "verifier" else REWARDS
    return tilt(rewards[drawn], form=form, ids=ids, seed=seed, **options)


def below():
    """Return of each answer the part of the base law that is less than it, and equal to it."""
    less = (REWARDS[None] < REWARDS[:, None]).double() @ BASE
    return less, (REWARDS[None] == REWARDS[:, None]).double() @ BASE


def law_of(form):
    """Return the law that is kept, by enumeration of the answers."""
    less, equal = below()
    if form == "best_of":
        # The best has this reward, and is any of those that have it.
        weights = BASE / equal * ((less + equal) ** N_BEST - less**N_BEST)
    else:
        scores = {"verifier": RIGHT, "quantile": less + equal / 2}.get(form, REWARDS)
        weights = BASE * (scores / BETA).exp()
    return weights / weights.sum()


def divergence(law):
    """Return KL(law, base), by enumeration."""
    return (law * (law / BASE).log()).sum().item()


def distance(kept, law):
    """Return the total variation between the answers that are kept and a law."""
    return (kept.bincount(minlength=OUTPUTS) / len(kept) - law).abs().sum().item() / 2


def assert_law(kept, law):
    """Compare the answers that are kept with a law, by a chi-squared test."""
    expected = len(kept) * law
    counts, is_rare = kept.bincount(minlength=OUTPUTS).double(), expected < 10
    observed = torch.cat([counts[~is_rare], counts[is_rare].sum()[None]])
    expected = torch.cat([expected[~is_rare], expected[is_rare].sum()[None]])
    observed, expected = observed[expected > 0], expected[expected > 0]
    assert len(expected) > 50
    chi_squared = ((observed - expected) ** 2 / expected).sum().item()
    assert stats.chi2.sf(chi_squared, len(expected) - 1) > CHANCE
