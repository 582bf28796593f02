"""Speculative steps at random: the call, and the check of its result."""

import torch

import rskernels


def speculative(rng):
    """Return a step of requests with lengths, settings and seeds of their own, and its check."""
    R, K, V = (int(rng.integers(1, most)) for most in (6, 5, 3000))
    draws = lambda *shape: torch.from_numpy(rng.standard_normal(shape)).float()  # noqa: E731
    target = 2 * draws(R, K + 1, V)
    draft = target[:, :K] + 0.5 * draws(R, K, V)
    tokens = torch.from_numpy(rng.integers(0, V, (R, K)))
    lengths = torch.from_numpy(rng.integers(0, K + 1, R))
    law = {
        "temperature": torch.from_numpy(rng.choice([0.0, 0.5, 1.0, 3.0], R)),
        "top_k": int(rng.integers(0, 20)),
        "seed": torch.from_numpy(rng.integers(0, 1 << 60, R)),
        "method": str(rng.choice(["token", "block"])),
    }
    source = target
    if rng.random() < 0.3:
        hidden, weight = draws(R, K + 1, 8), draws(V, 8)
        source = rskernels.LinearLogits(hidden, weight)

    def call():
        return rskernels.speculative_sample(source, tokens, draft, lengths=lengths, **law)

    def check(result):
        place = torch.arange(K + 1)
        assert torch.equal(result.tokens >= 0, place <= result.accepted[:, None])
        assert (result.accepted <= lengths).all()
        assert (result.log_prob[result.tokens >= 0] > -torch.inf).all()
        expected = [int(result.accepted.sum()), int(lengths.sum()), 0]
        assert result.counts.tolist() == expected

    return call, check
