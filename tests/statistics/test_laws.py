"""What the accepted draws are distributed as, on the CPU.

Every interval is inclusive and fails by chance with probability 5e-8.
"""

import math
import os

import pytest
import torch

import rskernels

SEED = int(os.environ.get("RSKERNELS_TEST_SEED", "0"))

# T3: each of 64 equal cells among the first 2**20 accepted.
ACCEPTED = 1 << 20
CELL_RANGE = (15_609, 17_171)
# T5: largest distance of a distribution function of 10**6 draws, for each of five targets.
DISTANCE_LIMIT = 0.0030912
# T8: w is 2.5 on 16 of 64 cells and 0.5 on 48, M = 2, 2**22 rows.
VIOLATED_ROWS = 1 << 22
VIOLATED_ACCEPTED_RANGE = (1_829_470, 1_840_547)
VIOLATIONS_RANGE = (1_043_744, 1_053_413)
HEAVY_OF_FIRST_MILLION_RANGE = (568_730, 574_126)
# T10: decisions that differ from the reference's, by the expected number of them.
FLIPS_ALLOWED = ((0.25, 6), (1.0, 10), (2.0, 13), (4.0, 19))


def draw_cells(weights, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(rows, dtype=torch.float64, generator=generator)
    return torch.searchsorted(weights.double().cumsum(0), u).clamp(max=len(weights) - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_t3_equal_cells_from_an_uneven_proposal(dtype):
    # Sensitive to log q: an error of 1 % in one cell's share of 1/64.
    logits = (1.2 * torch.sin(torch.arange(64.0))).to(dtype)
    q = logits.double().softmax(-1)
    M = (1 / (64 * q)).max().item()
    targets = draw_cells(q, int(1.02 * M * ACCEPTED), SEED + 3)
    mask = rskernels.accept_mask(
        logits.expand(len(targets), 64), 1 / 64, M, targets=targets, seed=SEED
    )
    accepted = targets[mask]
    assert len(accepted) >= ACCEPTED
    counts = accepted[:ACCEPTED].bincount(minlength=64)
    low, high = CELL_RANGE
    assert low <= counts.min() <= counts.max() <= high


def test_t3_verify_turns_a_draft_into_the_model():
    # With M the largest ratio, accepted draws of the draft follow the model.
    logits, q_hat = torch.zeros(64), (0.9 * torch.cos(torch.arange(64.0))).softmax(-1)
    M = (1 / (64 * q_hat)).max().item()
    targets = draw_cells(q_hat, int(1.02 * M * ACCEPTED), SEED + 4)
    mask = rskernels.verify_mask(
        logits.expand(len(targets), 64), q_hat[targets], M, targets=targets, seed=SEED
    )
    counts = targets[mask][:ACCEPTED].bincount(minlength=64)
    assert counts.sum() == ACCEPTED
    low, high = CELL_RANGE
    assert low <= counts.min() <= counts.max() <= high


CONTINUOUS = {
    # name: (log p - log q at a proposal, M, the proposal's draws, the target's law)
    "beta-uniform": ("uniform", 2.669744, ("beta", 2.7, 6.3)),
    "beta-beta": ("beta", 1.671808, ("beta", 2.7, 6.3)),
    "normal-cauchy": ("cauchy", math.sqrt(2 * math.pi / math.e), ("norm",)),
    "normal-laplace": ("laplace", math.sqrt(2 * math.e / math.pi), ("norm",)),
    "halved-acceptance": ("uniform", 2 * 2.669744, ("beta", 2.7, 6.3)),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_t5_continuous_laws(name):
    # Sensitive to the shape of the accepted law, wherever the error lies.
    stats = pytest.importorskip("scipy.stats")
    proposal, M, (law, *parameters) = CONTINUOUS[name]
    target = getattr(stats, law)(*parameters)
    proposal = stats.beta(2, 6) if proposal == "beta" else getattr(stats, proposal)()
    rows = int(1_000_000 * M * 1.01)
    generator = torch.Generator().manual_seed(SEED + 5)
    uniform = torch.rand(rows, dtype=torch.float64, generator=generator).numpy()
    x = proposal.ppf(uniform)
    log_ratio = torch.from_numpy(target.logpdf(x) - proposal.logpdf(x))
    mask = rskernels.bernoulli_mask(log_ratio, M, seed=SEED)
    accepted = torch.from_numpy(x)[mask][:1_000_000].sort().values
    assert len(accepted) == 1_000_000
    below = torch.from_numpy(target.cdf(accepted.numpy()))
    steps = torch.arange(1_000_001, dtype=torch.float64) / 1_000_000
    distance = max((steps[1:] - below).max(), (below - steps[:-1]).max())
    assert distance <= DISTANCE_LIMIT


def test_t8_violated_envelope():
    # Sensitive to the cap at 1: w = 2.5 with M = 2 is accepted, and reported.
    logits = torch.zeros(64).expand(VIOLATED_ROWS, 64)
    targets = draw_cells(torch.full((64,), 1 / 64), VIOLATED_ROWS, SEED + 6)
    heavy = targets < 16
    p_hat = torch.where(heavy, 2.5, 0.5) / 64
    seen = rskernels.accept(logits, p_hat, 2.0, targets=targets, seed=SEED)
    accepted, violations, invalid, ignored = seen.counts.tolist()
    assert accepted == seen.mask.sum()
    assert violations == heavy.sum()
    assert (invalid, ignored) == (0, 0)
    assert VIOLATED_ACCEPTED_RANGE[0] <= accepted <= VIOLATED_ACCEPTED_RANGE[1]
    assert VIOLATIONS_RANGE[0] <= violations <= VIOLATIONS_RANGE[1]
    first = heavy[seen.mask][:1_000_000].sum()
    assert HEAVY_OF_FIRST_MILLION_RANGE[0] <= first <= HEAVY_OF_FIRST_MILLION_RANGE[1]
    # The reported excess mass is δ = 1/8, which bounds the total variation 3/56.
    assert (seen.excess[0] / seen.excess[1]).item() == pytest.approx(1 / 8, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", ["target", "dense"])
def test_t10_kernel_against_reference(cpu, form, dtype):
    # Sensitive to the rounding of log q, log u and log M together.
    from rskernels.kernels import reference

    N, V = (200_000, 50) if form == "target" else (2_000, 500)
    generator = torch.Generator().manual_seed(SEED)
    logits = (3 * torch.randn(N, V, generator=generator)).to(dtype)
    log_q = reference.log_softmax(logits, 1.0)[0]
    targets = torch.randint(V, (N,), generator=generator) if form == "target" else None
    if form == "target":
        log_q = log_q.gather(-1, targets[:, None])[:, 0]
    log_p = log_q - torch.rand(log_q.shape, generator=generator, dtype=torch.float64)
    law = {"seed": SEED, "log_space": True}
    got = cpu.decide(logits, targets, log_p, 0.3, **law)
    want = reference.decide(logits, targets, log_p, 0.3, SEED, 0, 1.0, True, False, -100)
    r, r_hat = ((seen.double() - 0.3).exp().clamp(max=1) for seen in (got.log_ratio, want[2]))
    expected = (r - r_hat).abs().sum()
    flipped = got.mask != want[0]
    assert flipped.sum() <= next(flips for limit, flips in FLIPS_ALLOWED if expected <= limit)
    u = rskernels.uniforms(N, seed=SEED, columns=None if targets is not None else V)
    between = (torch.minimum(r, r_hat) <= u) & (u <= torch.maximum(r, r_hat))
    # Of the dense form's float32 logarithm of u, half a unit in the last place.
    between |= (u - r).abs() <= 2e-7 * (1 + u.log().abs()) * u
    assert between[flipped].all()
