"""What both trees are asked to do: calls of public names alone, on the same inputs in both."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.distributions import Laplace, Normal

import rskernels
from benchmarks.common import baselines
from benchmarks.common.cases import FURTHER, GRID, QUICK, Case, Pool

Call = Callable[[], Any]

FORWARD = "target_log_prob forward"
SMALL = [
    Case("verify_mask", 4, 10),
    Case("accept", 4, 10),
    Case("accept_mask dense", 4, 10),
    Case("target_log_prob", 4, 10),
    Case(FORWARD, 4, 10),
    Case("estimate_M", 4, 10),
]
LARGE = [
    Case(FORWARD, 2048, 1000),
    Case(FORWARD, 512, 32000),
    Case(FORWARD, 512, 32000, "bfloat16"),
]

# Log ratios of one Envelope.update.
ROWS = {"quick": (64, 1 << 20), "all": (64, 10_000_000)}
GROUPS = 10_000
POLICIES = {
    "max": {},
    "fixed": {"M": 2.0},
    "quantile": {"level": 0.9},
    "budget": {"rate": 0.5},
    "decayed": {"half_life": 1e6},
    "leave_one_out": {},
}
DRAWS = {"quick": (10, 10_000), "all": (10, 1_000, 10_000, 100_000, 1_000_000)}
LOG_M = 0.2744  # of N(0, 1) over Laplace(0, 1)


def calls(size: str, only: str = "") -> dict[str, Callable[[], Call]]:
    """Return what binds the inputs of each call, by the name of the case.

    ``size`` is "quick" or "all"; of the names those that hold ``only``.
    """
    cases = [*QUICK, *SMALL] if size == "quick" else [*FURTHER, *GRID, *SMALL, *LARGE]
    cases = list(dict.fromkeys(case for case in cases if only in str(case)))
    pool = Pool(cases)
    others = {**_ratios(), **_envelopes(ROWS[size]), **_samplers(DRAWS[size])}
    return {
        **{str(case): functools.partial(_bind, pool, case) for case in cases},
        **{name: bind for name, bind in others.items() if only in name},
    }


def _bind(pool: Pool, case: Case) -> Call:
    inputs = pool.inputs(case)
    if case.operation == FORWARD:
        return lambda: rskernels.target_log_prob(inputs.logits, inputs.targets)
    return functools.partial(baselines.ours(case), *inputs)


def _ratios() -> dict[str, Callable[[], Call]]:
    def bind(name: str, rows: int) -> Call:
        call = getattr(rskernels, name)
        return functools.partial(call, _log_ratio(rows), 1.0, log_space=True)

    return {
        f"{name} [{rows}]": functools.partial(bind, name, rows)
        for name in ("bernoulli_mask", "bernoulli")
        for rows in (4, 1 << 20)
    }


def _envelopes(sizes: tuple[int, ...]) -> dict[str, Callable[[], Call]]:
    def bind(policy: str, rows: int, groups: int) -> Call:
        envelope = rskernels.Envelope(policy, groups=groups, **POLICIES[policy])
        log_ratio = _log_ratio(rows)
        if groups == 1:
            return functools.partial(envelope.update, log_ratio)
        generator = torch.Generator().manual_seed(1)
        return functools.partial(
            envelope.update, log_ratio, torch.randint(groups, (rows,), generator=generator)
        )

    def bind_log_M() -> Call:
        envelope = rskernels.Envelope()
        envelope.update(_log_ratio(64))
        return envelope.log_M

    forms = [(policy, rows, 1) for policy in POLICIES for rows in sizes]
    forms += [(policy, sizes[-1], GROUPS) for policy in ("max", "quantile")]
    bound = {
        f"Envelope {policy}, update [{rows}]" + f", {groups} groups" * (groups > 1): (
            functools.partial(bind, policy, rows, groups)
        )
        for policy, rows, groups in forms
    }
    return {**bound, "Envelope max, log_M": bind_log_M}


def _samplers(sizes: tuple[int, ...]) -> dict[str, Callable[[], Call]]:
    def bind(num_samples: int, log_M: float | None) -> Call:
        target, proposal = Normal(0.0, 1.0), Laplace(0.0, 1.0)

        def call() -> tuple[torch.Tensor, torch.Tensor]:
            result = rskernels.rejection_sample(target, proposal, num_samples, log_M=log_M)
            return result.samples, result.log_weights

        return call

    return {
        f"rejection_sample {num_samples}, M {name}": functools.partial(bind, num_samples, log_M)
        for num_samples in sizes
        for name, log_M in (("given", LOG_M), ("learnt", None))
    }


def _log_ratio(rows: int) -> torch.Tensor:
    return torch.randn(rows, generator=torch.Generator().manual_seed(0))
