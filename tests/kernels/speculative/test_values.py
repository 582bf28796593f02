"""Every backend takes the steps that the definition takes, on rows that cross every block."""

import math

import pytest
import torch

import rskernels
from rskernels.kernels import reference
from rskernels.law.philox import row_uniforms_64
from rskernels.law.speculation import Speculation

from ...support.cases import layouts
from .cases import FORMS, LENGTHS, NEARLY_NEVER, R, draw_step

SIZES = (1, 5, 16, 17, 511, 512, 513, 2049, 8193, 20_000)
SLOW_SIZES = (16, 1025)
DTYPES = (
    torch.float64,
    torch.bfloat16,
    pytest.param(torch.float16, marks=pytest.mark.slow),
)


def assert_same(kernel, step, lengths=None, **law):
    """Check a step against the reference: the tokens, log p, and counts."""
    target, tokens, draft = step
    seen = kernel.speculate(target, tokens, draft, lengths, **law)
    want = reference.speculative.speculate(target, tokens, draft, lengths, Speculation(**law))
    want = rskernels.SpeculativeResult(*want)
    assert torch.equal(seen.tokens, want.tokens)
    assert torch.equal(seen.accepted, want.accepted)
    assert torch.equal(seen.counts, want.counts)
    is_double = target.dtype == torch.float64
    assert seen.log_prob.dtype == (torch.float64 if is_double else torch.float32)
    near = {"rtol": 1e-12, "atol": 1e-12} if is_double else {"rtol": 2e-5, "atol": 5e-6}
    torch.testing.assert_close(seen.log_prob.double(), want.log_prob, equal_nan=True, **near)
    return seen


@pytest.mark.parametrize("is_block", [False, True], ids=["token", "block"])
@pytest.mark.parametrize("form", FORMS)
def test_sizes_across_every_boundary(kernel, form, is_block):
    law = {"seed": 3, **FORMS[form], "is_block": is_block}
    for V in SLOW_SIZES[:1] if kernel.is_slow else SIZES:
        step = draw_step(V, **law)
        assert_same(kernel, step, LENGTHS, **law)
        if not kernel.is_slow:
            assert_same(kernel, (*step[:2], None), None, **law)


@pytest.mark.triton
@pytest.mark.parametrize(
    "is_block", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["token", "block"]
)
def test_parts_in_triton(gpu, is_block):
    law = {**FORMS["both"], "is_block": is_block}
    assert_same(gpu, draw_step(8200, **law), LENGTHS, **law)
    target, tokens, _ = draw_step(8200, requests=2)
    assert_same(gpu, (target, tokens, None), None, seed=4, is_block=is_block)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(kernel, dtype):
    for form in ("plain", "both"):
        assert_same(kernel, draw_step(700, dtype, **FORMS[form]), LENGTHS.int(), **FORMS[form])


def test_layouts(kernel):
    target, tokens, draft = draw_step(70)
    seen = kernel.speculate(target, tokens, draft, seed=1)
    for name in ("sliced", "stepped", "transposed"):
        views = (getattr(layouts(part), name) for part in (target, draft))
        other = kernel.speculate(
            next(views), tokens.int().t().contiguous().t(), next(views), seed=1
        )
        assert torch.equal(other.tokens, seen.tokens), name
    one = target[:1, :1].expand(R, 4, 70)
    assert_same(kernel, (one, tokens, one[:, :3]), seed=2)


def test_no_draft_tokens_and_no_requests(kernel):
    for settings in ({}, {"top_k": 2}, {"temperature": 0.0}, {"is_block": True}):
        assert_same(kernel, draw_step(33, K=0), seed=1, **settings)
    target, tokens, draft = draw_step(33)
    seen = kernel.speculate(target[:0], tokens[:0], draft[:0], seed=1)
    assert seen.tokens.shape == (0, 4)
    assert seen.counts.tolist() == [0, 0, 0]


def test_equal_logits_stay_together(backend):
    row = torch.tensor([1.0, 3.0, 2.0, 2.0, 0.0, 2.0])
    rows = row.expand(backend.rows(300, slow=12), 1, -1)
    tokens = torch.zeros(len(rows), 0, dtype=torch.int64)
    q = row.softmax(0)
    for settings, kept in (
        ({"top_k": 2}, [1, 2, 3, 5]),
        ({"top_k": 1}, [1]),
        ({"top_k": 99}, range(6)),
        ({"top_p": float(q[1]) - 1e-3}, [1]),
        ({"top_p": float(q[1]) + 1e-3}, [1, 2, 3, 5]),
        ({"top_p": 0.95, "top_k": 3}, [1, 2, 3, 5]),
        ({"top_k": 2, "top_p": 0.3}, [1]),
    ):
        seen = backend.speculate(rows, tokens, seed=5, **settings)
        law = torch.full_like(row, -torch.inf)
        law[list(kept)] = row[list(kept)]
        want = law.log_softmax(0)[seen.tokens[:, 0]]
        torch.testing.assert_close(seen.log_prob[:, 0].float(), want, rtol=1e-5, atol=1e-6)


SETTINGS = {
    "k": {"top_k": 7},
    "p": {"top_p": 0.85},
    "T and p": {"temperature": 2.5, "top_p": 0.7},
    "T, k and p": {"temperature": 0.6, "top_k": 9, "top_p": 0.9},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_of_transformers(name):
    """Where no two logits are equal; of equal ones it keeps some."""
    logits = pytest.importorskip("transformers.generation.logits_process")
    rows = 3 * torch.randn(40, 1, 50, generator=torch.Generator().manual_seed(0)).double()
    warpers = {
        "temperature": logits.TemperatureLogitsWarper,
        "top_k": logits.TopKLogitsWarper,
        "top_p": logits.TopPLogitsWarper,
    }
    warped = rows[:, 0]
    for setting, value in SETTINGS[name].items():
        warped = warpers[setting](value)(None, warped)
    p, bad = reference.speculative.processed(rows, Speculation(**SETTINGS[name]))
    assert not bad.any()
    torch.testing.assert_close(p[:, 0], warped.softmax(-1))


def law_of(row, temperature=1.0, top_k=0, top_p=1.0):
    """Return the law of a row of numbers, without torch: ties stay together."""
    weight = {z: math.exp((z - max(row)) / temperature) for z in row}
    kept = [z for z in row if not top_k or z >= sorted(row)[-top_k]]
    total, nucleus = sum(weight[z] for z in kept), []
    for z in sorted(set(kept), reverse=True):
        if top_p == 1 or sum(weight[z] for z in nucleus) < top_p * total:
            nucleus += [z] * kept.count(z)
    return [weight[z] * (z in nucleus) / sum(weight[z] for z in nucleus) for z in row]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_law_of_rows_with_ties(name):
    rows = torch.randint(-4, 5, (40, 30), generator=torch.Generator().manual_seed(0)).double()
    p, bad = reference.speculative.processed(rows[:, None], Speculation(**SETTINGS[name]))
    assert not bad.any()
    want = torch.tensor([law_of(row, **SETTINGS[name]) for row in rows.tolist()]).double()
    torch.testing.assert_close(p[:, 0].double(), want, rtol=1e-6, atol=1e-9)


def test_greedy_takes_the_first_of_the_largest(backend):
    target = torch.tensor([[[0.0, 2.0, 2.0], [5.0, 1.0, 5.0]]]).expand(3, -1, -1)
    tokens = torch.tensor([[1], [2], [0]])
    for is_block in (False, True):
        seen = backend.speculate(target, tokens, temperature=0.0, seed=1, is_block=is_block)
        assert seen.tokens.tolist() == [[1, 0], [1, -1], [1, -1]]
        assert seen.log_prob[seen.tokens >= 0].tolist() == [0.0] * 4


def test_the_inverse_of_the_distribution_function(backend):
    """The bonus token is the first by which the probabilities sum to the uniform."""
    V, N = 9, backend.rows(500, slow=20)
    row = torch.randn(V, generator=torch.Generator().manual_seed(3))
    seen = backend.speculate(
        row.expand(N, 1, V), torch.zeros(N, 0, dtype=torch.int64), seed=11, row_offset=70
    )
    u = row_uniforms_64(70 + torch.arange(N), 0, 11, 8)
    want = torch.searchsorted(row.double().softmax(0).cumsum(0), u)
    assert torch.equal(seen.tokens[:, 0], want)


@pytest.mark.parametrize("is_block", [False, True], ids=["token", "block"])
def test_what_has_no_probability_in_either_is_rejected(kernel, is_block):
    target, tokens, draft = draw_step(20)
    for value in NEARLY_NEVER[:1] if kernel.is_slow else NEARLY_NEVER:
        p, q = target.clone(), draft.clone()
        p[range(R), 1, tokens[:, 1]] = value
        for given in (value, 0.0, None):
            if given is not None:
                q[range(R), 1, tokens[:, 1]] = given
            step = p, tokens, None if given is None else q
            seen = assert_same(kernel, step, seed=2, is_block=is_block)
            assert seen.counts[0] > 0 or given is None
            assert (seen.accepted <= 1).all()
            assert seen.counts[2] == 0
