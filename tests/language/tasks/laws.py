"""Laws of walks that are tilted by a reward, by enumeration, and the test of what was kept."""

import torch
from scipy import stats

from rskernels import Envelope
from rskernels.language.tasks import graph
from rskernels.select import tilt

CHANCE = 5e-8
BETA, N_BEST = 0.25, 4
START, GOAL = 3, 17


def rewards_of(form, walks):
    """Return the reward of each walk that the form is tried with."""
    worth = graph.REWARDS["reach" if form == "verifier" else "toll"]
    prompts = [graph.prompt_of(walks.start, walks.goal)] * len(walks.prob)
    return torch.tensor(worth(prompts, walks.answers), dtype=torch.float64)


def select(form, rewards, ids, pilot):
    """Return which answers are kept."""
    envelope = Envelope("max")
    envelope.update(torch.cat([pilot, torch.ones(1, dtype=torch.float64)]) / BETA)
    options = {
        "verifier": {"beta": BETA},
        "bounded": {"beta": BETA, "bound": 1.0},
        "quantile": {"beta": BETA, "pilot": pilot},
        "best_of": {"n": N_BEST, "pilot": pilot},
        "learnt": {"beta": BETA, "envelope": envelope},
    }[form]
    return tilt(rewards, form=form, ids=ids, seed=7, **options)


def law_of(form, prob, rewards, pilot):
    """Return the law that is kept of answers with these probabilities and rewards."""
    below = (pilot[None] < rewards[:, None]).double().mean(1)
    up_to = (pilot[None] <= rewards[:, None]).double().mean(1)
    if form == "best_of":
        steps = (up_to - below).clamp(min=1e-300)
        mean = (up_to**N_BEST - below**N_BEST) / steps
        weights = torch.where(up_to > below, mean, N_BEST * up_to ** (N_BEST - 1))
    elif form == "quantile":
        weights = ((below + up_to) / 2 / BETA).exp()
    else:
        weights = (rewards / BETA).exp()
    law = prob * weights
    return law / law.sum()


def chance_of(places, law, least=50):
    """Return the p-value of a chi-squared test of answers, rare ones taken together."""
    expected = len(places) * law
    counts, is_rare = places.bincount(minlength=len(law)).double(), expected < 10
    observed = torch.cat([counts[~is_rare], counts[is_rare].sum()[None]])
    expected = torch.cat([expected[~is_rare], expected[is_rare].sum()[None]])
    observed, expected = observed[expected > 0], expected[expected > 0]
    assert len(expected) >= least
    chi_squared = ((observed - expected) ** 2 / expected).sum().item()
    return stats.chi2.sf(chi_squared, len(expected) - 1)
