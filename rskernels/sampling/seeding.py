"""The seed of a call: of its acceptances and of proposals drawn from torch's generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rskernels.law.philox import philox4x32, seed_words
from rskernels.law.seeds import check_seed, draw_seed
from rskernels.law.streams import Stream


@contextmanager
def seeded(seed: int | None, generator: torch.Generator | None) -> Iterator[int]:
    """Yield the seed of the acceptances, with torch's default generators seeded from it.

    They are put back afterwards. Without seed and generator they are left to run on, and the
    seed is drawn from the CPU's.
    """
    if seed is None and generator is None:
        yield int(draw_seed(None, torch.device("cpu")))
        return
    if seed is None:
        assert generator is not None
        device = getattr(generator, "device", torch.device("cpu"))
        seed = int(draw_seed(generator, device))
    elif generator is not None:
        raise ValueError("seed and generator are both given; at most one of them is accepted")
    if isinstance(seed, Tensor):
        raise TypeError("seed must be an int, got a tensor")
    key = int(check_seed(seed))
    counter = torch.tensor([0, 0, 0, Stream.PROPOSAL])
    high, low = philox4x32(counter, seed_words(key, "cpu"))[:2].tolist()
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else ()):
        torch.manual_seed((high >> 1) << 32 | low)
        yield key
