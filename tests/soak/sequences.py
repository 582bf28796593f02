"""Sequences as a case of the soak: alone and by an envelope, in a layout drawn at random."""

from __future__ import annotations

import numpy as np
import torch

import rskernels
from rskernels import Envelope
from rskernels.law.sequences import STATISTICS

LONGEST = (0, 1, 15, 16, 17, 63, 64, 65, 200)


def sequences(rng):
    """Return a call, and the check of its result."""
    B, T = int(rng.integers(0, 60)), int(rng.choice(LONGEST))
    if rng.random() < 0.04:
        B, T = 400, 3000
    values = 0.2 * rng.standard_normal((B, T), dtype=np.float32)
    mask = torch.from_numpy(rng.random((B, T)) < rng.choice([0.5, 1.0]))
    log_ratio = torch.from_numpy(values).to(
        getattr(torch, str(rng.choice(["float32", "bfloat16"])))
    )
    log_ratio[~mask] = torch.nan
    law = {"seed": int(rng.integers(2**62)), "row_offset": int(rng.integers(2**40))}
    statistic = str(rng.choice(STATISTICS))
    lengths = mask.sum(1)
    starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    is_packed = bool(rng.random() < 0.5)
    layout = {"cu_seqlens": starts} if is_packed else {"mask": mask}
    given = log_ratio[mask] if is_packed else log_ratio

    def call():
        seen = rskernels.accept_sequences(given, 1.2, statistic=statistic, **layout, **law)
        prefix = rskernels.accept_prefix(given, 1.1, **layout, **law)
        envelope = Envelope("fixed", M=1.5)
        learnt = envelope.accept_sequences(given, statistic=statistic, **layout, **law)
        tokens = envelope.bernoulli(log_ratio, mask=mask, **law)
        # Of few: threads share the sum of many, and how many they are settles its last bit.
        mean = rskernels.masked_mean(log_ratio[:8], mask[:8])
        return *seen, prefix, *learnt, *tokens, mean, envelope.to_bytes()

    def check(result):
        kept, token_mask, _, found, counts, _, tokens_kept = result[:7]
        assert torch.equal(found, lengths)
        assert counts[0] == kept.sum()
        assert counts[3] == (lengths == 0).sum()
        assert tokens_kept == token_mask.sum() == lengths[kept].sum()
        assert (result[9] <= lengths).all()

    return call, check
