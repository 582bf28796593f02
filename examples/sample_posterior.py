"""Draw from a posterior without Markov chains: independent draws by rejection.

The location of data with outliers: a Student-t likelihood and a normal prior, whose posterior has
no closed form. The proposal is a Student-t around the median. Its tails are heavier than those of
the posterior, so p/q is bounded and a finite M exists; a normal proposal narrower than the prior
would have none. M is learnt from pilot draws.
"""

import torch
from torch import Tensor
from torch.distributions import Normal, StudentT

import rskernels

DATA = torch.tensor([1.1, 0.7, 1.9, 1.4, 0.9, 1.6, 1.2, 9.5, -6.0, 1.3]).double()


def log_posterior(location: Tensor) -> Tensor:
    """Return the log density of each location ``[n]``, up to a constant."""
    likelihood = StudentT(2.0, location[:, None], 0.5).log_prob(DATA).sum(-1)
    return likelihood + Normal(0.0, 5.0).log_prob(location)


proposal = StudentT(torch.tensor(2.0).double(), DATA.median(), torch.tensor(0.5).double())
result = rskernels.rejection_sample(log_posterior, proposal, 20_000, seed=0)
low, high = result.samples.quantile(torch.tensor([0.05, 0.95]).double()).tolist()

print(f"posterior mean {result.samples.mean():.3f}, 90 % interval {low:.3f} to {high:.3f}")
print(f"accepted {result.acceptance_rate:.2f} of {result.proposals:,} proposals")
print(result.report)
