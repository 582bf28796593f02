"""Every operation as a case: a call that always gives the same bits, and a check of its result.

``CASES`` has by name what makes a case from a random generator of NumPy's. The inputs are made
before the call, which a child of fork can then make as well.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

import rskernels
from rskernels import ColumnOrder, Envelope
from rskernels.kernels import reference

from ..support.backends import backend_of
from ..support.bits import same_bits
from ..support.lawful import assert_lawful
from .cases import draw_rows
from .sequences import sequences
from .steps import speculative


class Case(NamedTuple):
    """A call without arguments, and what raises AssertionError if its result is wrong."""

    call: Callable[[], object]
    check: Callable[[object], None] = lambda result: None


def make_case(kind: str, seed: int, number: int) -> Case:
    """Return the same case for the same arguments."""
    return CASES[kind](np.random.default_rng([seed, sorted(CASES).index(kind), number]))


def accept(rng, dense=False, name="accept"):
    rows = draw_rows(rng, dense)
    given = (rows.logits, rows.density)

    def call():
        return getattr(rskernels, name)(*given, targets=rows.targets, **rows.law)

    def check(result):
        assert result.counts[0] == result.mask.sum()
        law = rows.law | {"model_is_target": name == "verify"}
        if rows.is_compared:
            M = law.pop("M")
            lawful = assert_lawful(backend_of("cpu"), *_in_order(rows), M, **law)
            assert same_bits(result, lawful)

    return Case(call, check)


def _in_order(rows):
    return rows.logits, rows.targets, rows.density


def verify(rng):
    return accept(rng, name="verify")


def dense(rng):
    return accept(rng, dense=True)


def masks(rng, name="accept_mask"):
    """Make masks of a whole batch and of its parts, in both forms of the early exit."""
    rows = draw_rows(rng)
    more = {"targets": rows.targets, **rows.law}
    promise = {"assume_finite": True} if name == "accept_mask" else {}

    def mask(logits, density, **more):
        return getattr(rskernels, name)(logits, density, **more)

    def call():
        whole = mask(rows.logits, rows.density, **more)
        lazy = whole
        if promise and _is_finite(rows.logits):
            lazy = mask(rows.logits, rows.density, **more, **promise)
        return whole, lazy

    def check(result):
        whole, lazy = result
        full = getattr(rskernels, name.removesuffix("_mask"))(rows.logits, rows.density, **more)
        assert torch.equal(whole, full.mask)
        assert torch.equal(lazy, whole)
        if rows.logits.dim() == 2 and len(rows.logits) > 1:
            cut = len(rows.logits) // 2
            law = more | {"targets": rows.targets[cut:], "M": _part(more["M"], cut)}
            law["row_offset"] += cut
            law["temperature"] = _part(law["temperature"], cut)
            part = mask(rows.logits[cut:], _part(rows.density, cut), **law)
            assert torch.equal(part, whole[cut:])

    return Case(call, check)


def _part(value, begin):
    is_of_rows = isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] > 1
    return value[begin:] if is_of_rows else value


def _is_finite(logits):
    return not ((logits != logits) | (logits == math.inf)).any()


def verify_mask(rng):
    return masks(rng, "verify_mask")


def dense_mask(rng):
    rows = draw_rows(rng, dense=True)

    def check(result):
        assert torch.equal(result, rskernels.accept(rows.logits, rows.density, **rows.law).mask)

    return Case(lambda: rskernels.accept_mask(rows.logits, rows.density, **rows.law), check)


def order(rng):
    """Decide in an order of the columns, of logits that keep the promise."""
    rows = draw_rows(rng)
    V = rows.logits.shape[-1]
    weights = torch.from_numpy(rng.random(V))
    lazy = _is_finite(rows.logits)

    def call():
        by = ColumnOrder.by_weight(weights)
        return by.blocks, rskernels.accept_mask(
            rows.logits,
            rows.density,
            targets=rows.targets,
            order=by,
            assume_finite=lazy,
            **rows.law,
        )

    return Case(call)


def bernoulli(rng):
    rows = draw_rows(rng)
    law = {name: rows.law[name] for name in ("seed", "row_offset", "log_space")}
    stream = int(rng.integers(2**31))
    log_ratio = rows.logits
    M = 0.3 if law["log_space"] else 1.3

    named = dict(law)
    if rng.random() < 0.5:
        ids = torch.arange(log_ratio.numel()).view(log_ratio.shape)
        named["ids"] = ids + named.pop("row_offset")

    def call():
        seen = rskernels.bernoulli(log_ratio, M, stream=stream, **law)
        return rskernels.bernoulli_mask(log_ratio, M, stream=stream, **named), *seen

    def check(results):
        result, mask, _, kept, counts, _ = results
        assert torch.equal(mask, result)
        assert counts[0] == mask.sum()
        assert counts[2] == kept.isnan().sum()
        if rows.is_compared:
            log_u = rskernels.uniforms(
                log_ratio.shape, seed=law["seed"], row_offset=law["row_offset"], stream=stream
            ).log()
            log_r = log_ratio.double() - (M if law["log_space"] else math.log(M))
            near = (log_r - log_u).abs() < 1e-6
            right = (log_r >= log_u) & (log_ratio < math.inf)
            assert ((result == right) | near).all()

    return Case(call, check)


def log_prob(rng):
    """Take log-probabilities and their gradient, alone and with a decision."""
    rows = draw_rows(rng)
    temperature = rows.law["temperature"]
    targets = rows.targets
    upstream = torch.from_numpy(rng.standard_normal(targets.shape))

    def call():
        leaf = rows.logits.detach().requires_grad_()
        value = rskernels.target_log_prob(leaf, targets, temperature=temperature)
        (gradient,) = torch.autograd.grad(value, leaf, upstream.to(value.dtype))
        seen = rskernels.accept(leaf, rows.density, targets=targets, **rows.law)
        (again,) = torch.autograd.grad(seen.log_prob, leaf, upstream.to(value.dtype))
        return value, gradient, again

    def check(result):
        value, gradient, again = result
        assert same_bits(gradient, again)
        assert gradient.shape == rows.logits.shape
        if rows.is_compared:
            want = reference.target_log_prob(rows.logits.double(), targets, temperature, -100)
            torch.testing.assert_close(value.double(), want, rtol=1e-5, atol=1e-4, equal_nan=True)

    return Case(call, check)


def estimate(rng):
    rows = draw_rows(rng, dense=bool(rng.random() < 0.3))
    options = {"temperature": rows.law["temperature"], "log_space": rows.law["log_space"]}
    if rng.random() < 0.5:
        options |= {"method": "quantile", "level": float(rng.random())}

    def call():
        try:
            return rskernels.estimate_M(rows.logits, rows.density, targets=rows.targets, **options)
        except ValueError as error:
            # There is no valid ratio.
            return str(error)

    def check(result):
        log_ratio = rskernels.accept(
            rows.logits, rows.density, 1.0, targets=rows.targets, seed=1, **options_of(options)
        ).log_ratio.double()
        log_ratio = log_ratio[~log_ratio.isnan()]
        if isinstance(result, str):
            assert len(log_ratio) == 0 or not log_ratio.max().isfinite(), result
        elif "level" not in options:
            log_M = result if options["log_space"] else math.log(result)
            assert abs(log_M - log_ratio.max()) < 1e-4 * (1 + abs(log_M))

    return Case(call, check)


def options_of(options):
    return {name: options[name] for name in ("temperature", "log_space")}


def uniforms(rng):
    shape = tuple(int(n) for n in rng.integers(0, 40, size=2))
    seed, offset = (int(n) for n in rng.integers(2**62, size=2))
    columns = 7 if rng.random() < 0.5 else None
    return Case(lambda: rskernels.uniforms(shape, seed=seed, row_offset=offset, columns=columns))


POLICIES = (
    {"policy": "max"},
    {"policy": "max", "on_violation": "control"},
    {"policy": "fixed", "M": 1.5},
    {"policy": "leave_one_out"},
    {"policy": "decayed", "half_life": 50.0},
    {"policy": "quantile", "level": 0.9},
    {"policy": "quantile", "level": 0.9, "half_life": 100.0},
    {"policy": "budget", "rate": 0.5},
    {"policy": "tail", "on_violation": "thin"},
)


def draw_ratios(rng, groups, most=2000):
    """Return log ratios, some of them invalid, and their groups."""
    size = int(rng.integers(most))
    ratios = rng.standard_normal(size).astype(rng.choice(["float32", "float64"]))
    ratios[rng.random(size) < 0.01] = rng.choice([np.nan, np.inf, -np.inf])
    ids = torch.from_numpy(rng.integers(groups, size=size))
    return torch.from_numpy(ratios), ids if groups > 1 or rng.random() < 0.5 else None


def envelope(rng):
    """Learn M from a few batches, alone; save, copy and restore it."""
    options = POLICIES[int(rng.integers(len(POLICIES)))]
    groups = int(rng.choice([1, 1, 3, 100]))
    most = (1 << 18) if rng.random() < 0.05 else 2000
    batches = [draw_ratios(rng, groups, most) for _ in range(int(rng.integers(1, 5)))]

    def call():
        one, other = (Envelope(**options, groups=groups) for _ in range(2))
        weights = [one.update(*batch, accepted=batch[0] > 0) for batch in batches[1:]]
        other.update(*batches[0])
        one.merge(other)
        state = one.state_dict()
        other.load_state_dict(state)
        for again in (other, pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
            assert again.to_bytes() == one.to_bytes()
        kept = None
        if options["policy"] != "tail":
            ids = batches[0][1]
            log_M = one.log_M(ids) if ids is not None else one.log_M()
            kept = log_M, one.M(), one.thin(batches[0][0], 0.5, ids, seed=3)
        text = str(one.report()) if groups < 4 else ""
        return [*[w for w in weights if w is not None], state, kept, text]

    def check(result):
        again = Envelope(**options, groups=groups)
        for batch in batches:
            again.update(*batch)
        restored = Envelope(**options, groups=groups)
        restored.load_state_dict(next(part for part in result if isinstance(part, dict)))
        got, want = restored.tallies(), again.tallies()
        assert torch.equal(got["seen"], want["seen"])
        assert torch.equal(got["max_log_ratio"], want["max_log_ratio"])

    return Case(call, check)


def sampling(rng):
    """Draw by a proposal with a generator of its own: other threads use torch's default one."""
    seed, wanted = (int(n) for n in rng.integers(1, 400, size=2))
    how = str(rng.choice(["thin", "cap", "control"]))
    options = {"pilot": int(rng.integers(1, 300)), "batch_size": int(rng.integers(1, 2000))}
    wide = float(1.0 + rng.random())
    log_M = [None, math.log(wide), "quantile:0.9"][int(rng.integers(3))]

    def normal(scale):
        return lambda x: -0.5 * (x / scale).square() - math.log(scale)

    def call():
        generator = torch.Generator().manual_seed(seed)
        bound = {"log_M": log_M, "on_violation": how}
        if isinstance(log_M, str):
            bound = {"log_M": Envelope.parse(log_M, on_violation=how)}
        proposal = (lambda n: wide * torch.randn(n, generator=generator), normal(wide))
        result = rskernels.rejection_sample(
            normal(1.0), proposal, wanted, seed=seed, **bound, **options
        )
        report = result.report
        return result.samples, result.log_weights, result.proposals, report.log_M, report.drawn

    def check(result):
        assert result[0].shape == (wanted,)
        assert result[0].isfinite().all()

    return Case(call, check)


CASES = {
    "accept": accept,
    "accept_mask": masks,
    "bernoulli": bernoulli,
    "dense": dense,
    "dense_mask": dense_mask,
    "envelope": envelope,
    "estimate_M": estimate,
    "order": order,
    "rejection_sample": sampling,
    "sequences": lambda rng: Case(*sequences(rng)),
    "speculative": lambda rng: Case(*speculative(rng)),
    "target_log_prob": log_prob,
    "uniforms": uniforms,
    "verify": verify,
    "verify_mask": verify_mask,
}
