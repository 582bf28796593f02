"""Requests stand alone, and one that has no law ends there and is counted."""

import math

import pytest
import torch

import rskernels
from rskernels.kernels.product import Product
from rskernels.law.speculation import Speculation

from ...support.bits import same_bits
from .cases import R, draw_step


def without_request(seen, request):
    kept = torch.arange(len(seen.tokens)) != request
    return tuple(part[kept] for part in seen[:3])


@pytest.mark.parametrize("is_block", [False, True], ids=["token", "block"])
@pytest.mark.parametrize("value", [math.nan, math.inf, "-inf"])
def test_a_row_without_a_law_ends_its_request(backend, value, is_block):
    target, tokens, draft = draw_step(20, number=2)
    draft = target[:, :3].clone()  # so that all are accepted
    before = backend.speculate(target, tokens, draft, seed=1, is_block=is_block)
    assert before.accepted.tolist() == [3] * R
    for side, place in (("target", 2), ("draft", 1), ("target", 3), ("target", 0)):
        broken = {"target": target.clone(), "draft": draft.clone()}
        row = broken[side][4, place]
        row[slice(None) if value == "-inf" else 13] = float(value)
        seen = backend.speculate(
            broken["target"], tokens, broken["draft"], seed=1, is_block=is_block
        )
        assert same_bits(without_request(seen, 4), without_request(before, 4))
        # A block that ends at such a row may already have ended before.
        assert seen.accepted[4] <= place
        ends_there = bool(seen.accepted[4] == place)
        assert ends_there or is_block
        assert seen.tokens[4, place:].eq(-1).all() or is_block
        assert (seen.tokens[4] == -1).equal(seen.log_prob[4].isnan())
        assert seen.counts.tolist() == [int(seen.accepted.sum()), 3 * R, int(ends_there)]


def test_settings_out_of_range_end_their_request(backend):
    target, tokens, draft = draw_step(20)
    good = {
        "temperature": torch.ones(R, dtype=torch.float64),
        "top_k": torch.full((R,), 9),
        "top_p": torch.full((R,), 0.9, dtype=torch.float64),
    }
    before = backend.speculate(target, tokens, draft, seed=1, **good)
    for name, values in (
        ("temperature", (math.nan, -1.0, 1e31, 1e-31)),
        ("top_k", (-1,)),
        ("top_p", (math.nan, 0.0, 1.5)),
    ):
        for value in values[:1] if backend.is_slow else values:
            bad = {**good, name: good[name].clone()}
            bad[name][2] = value
            seen = backend.speculate(target, tokens, draft, seed=1, **bad)
            assert same_bits(without_request(seen, 2), without_request(before, 2))
            assert seen.tokens[2].tolist() == [-1] * 4, (name, value)
            assert seen.counts[2] == 1


def test_tokens_and_lengths_out_of_range_on_a_device(backend):
    if backend.name == "cpu":
        pytest.skip("they raise; see tests/ops")
    target, tokens, draft = draw_step(20)
    draft = target[:, :3].clone()
    before = backend.speculate(target, tokens, draft, seed=1)
    for token in (-1, 20, 1 << 40):
        broken = tokens.clone()
        broken[1, 1] = token
        seen = backend.speculate(target, broken, draft, seed=1)
        assert same_bits(without_request(seen, 1), without_request(before, 1))
        assert seen.tokens[1].tolist() == [int(tokens[1, 0]), -1, -1, -1]
        assert seen.counts[2] == 1
    lengths = torch.tensor([3, 4, 3, 3, -1, 3])
    seen = backend.speculate(target, tokens, draft, lengths, seed=1)
    assert (seen.tokens[[1, 4]] == -1).all()
    assert seen.counts.tolist() == [int(seen.accepted.sum()), 12, 2]


@pytest.mark.parametrize("is_block", [False, True], ids=["token", "block"])
def test_nothing_of_probability_0_is_drawn(backend, is_block):
    N = backend.rows(400, slow=8)
    target, tokens, draft = draw_step(40, requests=N, number=5)
    target[:, :, ::2] = -math.inf
    # The draft has what the target lacks, and lacks most of what it has.
    draft[:, :, 5:] = -math.inf
    tokens = 2 * (tokens % 3)
    for given in (draft, None):
        seen = backend.speculate(target, tokens, given, seed=3, is_block=is_block)
        kept = seen.tokens[seen.tokens >= 0]
        assert (kept % 2 == 1).all()
        assert (seen.accepted == 0).all()
        assert seen.log_prob[seen.tokens >= 0].isfinite().all()


@pytest.mark.parametrize("is_block", [False, True], ids=["token", "block"])
def test_the_same_law_accepts_everything(backend, is_block):
    N = backend.rows(2000, slow=6)
    target, tokens, _ = draw_step(40, requests=N, number=6)
    for settings in ({}, {"top_k": 40}, {"temperature": 0.5}):
        seen = backend.speculate(
            target, tokens, target[:, :3], seed=3, is_block=is_block, **settings
        )
        assert (seen.accepted == 3).all()
        assert (seen.tokens >= 0).all()


def test_a_draft_token_that_cannot_have_been_drawn_is_rejected(backend):
    target, tokens, draft = draw_step(20)
    draft[range(R), 1, tokens[:, 1]] = -math.inf
    seen = backend.speculate(target, tokens, draft, seed=2)
    assert (seen.accepted <= 1).all()
    assert seen.counts[2] == 0


@pytest.mark.parametrize("is_block", [False, True], ids=["token", "block"])
@pytest.mark.parametrize("settings", [{}, {"top_k": 20, "top_p": 0.9}], ids=["plain", "cut"])
def test_a_request_alone_and_in_a_batch_of_64(backend, threads, settings, is_block):
    """With a seed for each, or with its id, it is the same request at any place."""
    N = backend.rows(64, slow=5)
    V = 9000 if backend.name == "cpu" else 300  # its rows have more parts than one
    target, tokens, draft = draw_step(V, requests=N, K=5, number=9)
    lengths = torch.arange(N) % 6
    T = torch.linspace(0.0, 2.0, N, dtype=torch.float64)
    law = {"is_block": is_block, **settings}
    seeds, ids = torch.arange(N) * 1000, torch.arange(N) + 50
    whole = backend.speculate(
        target, tokens, draft, lengths, temperature=T, seed=seeds, row_offset=3, **law
    )
    by_id = backend.speculate(
        target, tokens, draft, lengths, temperature=T, seed=8, row_offset=50, **law
    )
    threads(1)
    for n in [*range(0, N, 7), N - 1]:
        one = slice(n, n + 1)
        alone = (target[one], tokens[one], draft[one], lengths[one])
        own = {"temperature": T[one], **law}
        seen = backend.speculate(*alone, seed=seeds[one], row_offset=3, **own)
        assert same_bits(seen[:3], tuple(part[one] for part in whole[:3]))
        for offset in (50 + n,) if backend.is_slow else (50 + n, ids[one]):
            seen = backend.speculate(*alone, seed=8, row_offset=offset, **own)
            assert same_bits(seen[:3], tuple(part[one] for part in by_id[:3]))


def test_hidden_states_alone_and_in_a_batch(cpu):
    generator = torch.Generator().manual_seed(0)
    N, K, D, V = 40, 3, 33, 1100
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    hidden, weight = draw(N, K + 1, D), draw(V, D)
    draft = hidden[:, :K] @ weight.T + draw(N, K, V)
    tokens, seeds = draft.argmax(-1), torch.arange(N)

    def step(rows, **law):
        z = rskernels.LinearLogits(hidden[rows], weight, weight[:, 0], softcap=9.0)
        return rskernels.speculative_sample(
            z, tokens[rows], draft[rows], seed=seeds[rows], row_offset=3, **law
        )

    for law in ({}, {"top_p": 0.9}, {"method": "block"}):
        whole = step(slice(None), **law)
        assert 0 < whole.counts[0] < N * K
        for n in (0, 15, 16, 39):
            one = slice(n, n + 1)
            assert same_bits(step(one, **law)[:3], tuple(part[one] for part in whole[:3]))


def test_hidden_states_of_a_request_without_a_law(backend):
    if backend.name == "reference":
        pytest.skip("the definition makes all logits")
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(4, 3, 16, generator=generator)
    weight = torch.randn(50, 16, generator=generator)
    hidden[1, 0], hidden[2, 2] = math.nan, math.nan
    z = Product(hidden.view(-1, 16), weight, None, 1.0, 0.0, None)
    draft = hidden[:, :2] @ weight.T
    tokens = draft.nan_to_num().argmax(-1)
    z = z._replace(hidden=backend.place(z.hidden), weight=backend.place(z.weight))
    given = (backend.place(tokens), backend.place(draft), None)
    seen = backend.kernels.speculative.speculate_product(z, *given, Speculation(seed=1))
    tokens_seen, accepted, _, counts = (part.cpu() for part in seen)
    assert accepted.tolist() == [2, 0, 2, 2]
    assert tokens_seen[1].tolist() == [-1] * 3
    assert tokens_seen[2, 2] == -1
    assert counts.tolist() == [6, 8, 2]
