"""The two sides of rejection sampling, called batch by batch and checked: proposals and target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from rskernels.law.philox import philox4x32, seed_words
from rskernels.law.seeds import check_seed, draw_seed
from rskernels.ops.arguments import FLOAT_DTYPES, FLOAT_NAMES

# Streams 0 and 1 are the masks' acceptances and the envelope's thinning.
SAMPLE_STREAM = 2
PROPOSAL_STREAM = 3

LogProb = Callable[[Tensor], Tensor]
Target = LogProb | Distribution
Proposal = Distribution | tuple[Callable[[int], Tensor], LogProb]


class Batch(NamedTuple):
    """Proposals in the order of their drawing."""

    samples: Tensor  # [n, ...]
    log_ratio: Tensor  # log p - log q, float32 or float64 [n]


class Draws:
    """Draws of the proposal with their log ratios to the target."""

    def __init__(self, log_prob: Target, proposal: Proposal) -> None:
        self._log_p = _density("log_prob", log_prob)
        self._form: tuple[torch.Size, torch.dtype, torch.device] | None = None
        if isinstance(proposal, Distribution):
            given = proposal
            _check_single("proposal", given)
            self._sample: Callable[[int], Tensor] = lambda n: given.sample(torch.Size((n,)))
            self._log_q: LogProb = given.log_prob
            # Of a draw; unknown before the first where the proposal is a pair.
            self.numbers: int | None = given.event_shape.numel()
        elif isinstance(proposal, tuple) and len(proposal) == 2 and all(map(callable, proposal)):
            self._sample, self._log_q = proposal
            self.numbers = None
        else:
            raise TypeError(
                "proposal must be a torch.distributions.Distribution or a pair (sample, log_prob) "
                f"of callables, got {type(proposal).__name__}"
            )

    def draw(self, n: int) -> Batch:
        """Draw n proposals; raise TypeError or ValueError if a result has another form."""
        samples = self._sample(n)
        if not isinstance(samples, Tensor):
            raise TypeError(f"the proposal's sample must return a tensor, got {_kind(samples)}")
        if samples.dim() == 0 or len(samples) != n:
            raise ValueError(
                f"the proposal's sample must return [n, ...] for n = {n}, got {list(samples.shape)}"
            )
        form = samples.shape[1:], samples.dtype, samples.device
        self._form = self._form or form
        if form != self._form:
            raise ValueError(
                "the proposal's sample must return draws of one shape, dtype and device: these are "
                f"{list(form[0])}, {form[1]}, {form[2]}, those before were {list(self._form[0])}, "
                f"{self._form[1]}, {self._form[2]}"
            )
        log_p = _checked("the target's log_prob", self._log_p(samples), samples)
        log_q = _checked("the proposal's log_prob", self._log_q(samples), samples)
        return Batch(samples, log_p - log_q)


def _density(name: str, value: Target) -> LogProb:
    if isinstance(value, Distribution):
        _check_single(name, value)
        log_prob: LogProb = value.log_prob
        return log_prob
    if not callable(value):
        raise TypeError(f"{name} must be a callable or a Distribution, got {type(value).__name__}")
    return value


def _check_single(name: str, given: Distribution) -> None:
    if given.batch_shape:
        raise ValueError(
            f"{name} is a batch of distributions, {list(given.batch_shape)}; "
            "torch.distributions.Independent makes one of it"
        )


def _checked(name: str, values: Tensor, samples: Tensor) -> Tensor:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must return a tensor, got {_kind(values)}")
    if values.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{name} must return {FLOAT_NAMES}, got {values.dtype}")
    if values.shape != samples.shape[:1]:
        raise ValueError(
            f"{name} must return one number a draw, {list(samples.shape[:1])} for draws "
            f"{list(samples.shape)}, got {list(values.shape)}"
        )
    if values.device != samples.device:
        raise ValueError(f"{name} is on {values.device}, the draws are on {samples.device}")
    # A ratio of half precision would be wrong by a per cent.
    return values if values.dtype == torch.float64 else values.float()


def _kind(value: object) -> str:
    return type(value).__name__


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
        kind = getattr(generator, "device", torch.device("cpu"))
        seed = int(draw_seed(generator, kind))
    elif generator is not None:
        raise ValueError("seed and generator are both given; at most one of them is accepted")
    if isinstance(seed, Tensor):
        raise TypeError("seed must be an int, got a tensor")
    key = int(check_seed(seed))
    counter = torch.tensor([0, 0, 0, PROPOSAL_STREAM])
    high, low = philox4x32(counter, seed_words(key, "cpu"))[:2].tolist()
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else ()):
        torch.manual_seed((high >> 1) << 32 | low)
        yield key
