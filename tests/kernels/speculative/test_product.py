"""Steps on logits that are not stored: those of the definition, for each request alone."""

import math

import pytest
import torch

from rskernels.kernels import reference
from rskernels.kernels.product import Product
from rskernels.law.philox import row_uniforms
from rskernels.law.speculation import Speculation
from rskernels.law.streams import Stream

from ...support.bits import same_bits
from .cases import NEARLY_NEVER


def draw_product(requests, K, V, D=8):
    """Return (product, its logits [R, K + 1, V], draft tokens that are likely)."""
    generator = torch.Generator().manual_seed(V)
    hidden = torch.randn(requests * (K + 1), D, generator=generator)
    weight = 0.3 * torch.randn(V, D, generator=generator)
    z = (hidden @ weight.T).view(requests, K + 1, V)
    product = Product(hidden, weight, None, 1.0, 0.0, None)
    return product, z, torch.randint(0, V, (requests, K), generator=generator)


def speculate_product(backend, product, tokens, draft, lengths, law):
    given = map(backend.place, (product, tokens, draft, lengths))
    kernels = backend.kernels.speculative
    return tuple(part.cpu() for part in kernels.speculate_product(*given, law))


@pytest.mark.triton
def test_tokens_and_lengths_out_of_range_on_a_device(gpu):
    R, K, V = 6, 3, 9
    product, z, tokens = draw_product(R, K, V)
    draft, law = z[:, :K].clone(), Speculation(seed=3)
    tokens[0, 1], tokens[1, 0], tokens[2, 2] = V + 5, -3, 1 << 40
    tokens[5] = torch.tensor([99, 98, 97])
    for lengths in (None, torch.tensor([-1, K + 1, 2, 0, 3, 1])):
        for given in (draft, None):
            seen = speculate_product(gpu, product, tokens, given, lengths, law)
            want = reference.speculative.speculate(z, tokens, given, lengths, law)
            assert torch.equal(seen[0], want[0])
            assert torch.equal(seen[1], want[1])
            assert torch.equal(seen[3], want[3])
            assert torch.equal(seen[2].isnan(), seen[0] < 0)
            assert int(seen[0].max()) < V


def draw_ties(requests, V=300, D=16):
    """Return (product, draft tokens) of which log p is log u of seed 1, within rounding."""
    product, _, tokens = draw_product(requests, 1, V, D)
    hidden, weight = product.hidden.view(requests, 2, D), product.weight / 0.3
    weight[:, 0] = 0.0
    weight[7] = torch.eye(D)[0]
    z = hidden[:, 0].double() @ weight.double().T
    z[:, 7] = -math.inf
    u = row_uniforms(torch.arange(requests), 0, 1, Stream.SPECULATE).double()
    hidden[:, 0, 0] = (z.logsumexp(-1) + u.log() - (-u).log1p()).float()
    return product._replace(weight=weight), torch.full_like(tokens, 7)


def test_neighbours_with_other_settings(backend):
    """Where a last bit decides, no neighbour's settings change what a request does."""
    if backend.name == "reference":
        pytest.skip("the definition makes all logits")
    R = backend.rows(400, slow=3)
    product, tokens = draw_ties(R)
    plain = {
        "temperature": torch.ones(R, dtype=torch.float64),
        "top_k": torch.zeros(R, dtype=torch.int64),
        "top_p": torch.ones(R, dtype=torch.float64),
    }
    step = lambda **law: speculate_product(  # noqa: E731
        backend, product, tokens, None, None, Speculation(seed=1, **law)
    )
    whole = step(**plain)
    if backend.name == "cpu":
        assert 0 < whole[3][0] < R
        assert same_bits(step()[:3], whole[:3])
        one = slice(R // 2, R // 2 + 1)
        own = product._replace(hidden=product.hidden[R - R % 2 : R - R % 2 + 2])
        law = Speculation(**{name: value[one] for name, value in plain.items()}, seed=1)
        law = law._replace(row_offset=R // 2)
        alone = speculate_product(backend, own, tokens[one], None, None, law)
        assert same_bits(alone[:3], tuple(part[one] for part in whole[:3]))
    for name, value in (
        ("temperature", 0.0), ("temperature", math.nan), ("top_k", 5), ("top_p", 0.5),
    ):  # fmt: skip
        other = {**plain, name: plain[name].clone()}
        other[name][R - 2] = value
        kept = torch.arange(R) != R - 2
        seen = step(**other)
        assert same_bits(
            tuple(part[kept] for part in seen[:3]), tuple(part[kept] for part in whole[:3])
        ), (name, value)
        assert seen[3][2] == int(math.isnan(value))


def test_neighbours_with_other_settings_and_seeds(cpu):
    """A request's seed, id, length and draft stay with it."""
    R, K, V = 5, 2, 40
    product, z, tokens = draw_product(R, K, V)
    draft, lengths = z[:, :K].roll(1, 0), torch.tensor([2, 1, 0, 2, 2])
    T = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.5], dtype=torch.float64)
    for seed in (4, torch.arange(R) + 3):
        for row_offset in (9, torch.arange(R) * 5):
            law = Speculation(temperature=T, seed=seed, row_offset=row_offset)
            seen = speculate_product(cpu, product, tokens, draft, lengths, law)
            want = reference.speculative.speculate(z, tokens, draft, lengths, law)
            for at in (0, 1, 3):
                assert torch.equal(seen[at], want[at])


def test_ids_at_the_end_of_64_bits(backend):
    if backend.name == "reference":
        pytest.skip("the definition makes all logits")
    R, K, V = 40 if backend.name == "cpu" else 2, 2, 9
    product, z, tokens = draw_product(R, K, V)
    end = (1 << 63) - 1
    ids = torch.tensor([(end + n + (1 << 63)) % (1 << 64) - (1 << 63) for n in range(R)])
    for T in (1.0, 0.0, torch.ones(R, dtype=torch.float64)):
        for row_offset in (end, ids):
            law = Speculation(temperature=T, seed=2, row_offset=row_offset)
            seen = speculate_product(backend, product, tokens, None, None, law)
            want = reference.speculative.speculate(z, tokens, None, None, law)
            assert torch.equal(seen[0], want[0])


def test_what_has_no_probability_in_either_is_rejected(backend):
    if backend.name == "reference":
        pytest.skip("the definition makes all logits")
    R, V = backend.rows(20, slow=3), 9
    product, z, tokens = draw_product(R, 2, V)
    tokens[:, 1] = 4
    for value in NEARLY_NEVER:
        bias = torch.zeros(V)
        bias[4] = value
        draft = z.roll(1, 0)[:, :2] + bias
        for T in (1.0, torch.ones(R, dtype=torch.float64)):
            law = Speculation(seed=2, temperature=T)
            own = product._replace(bias=bias)
            seen = speculate_product(backend, own, tokens, draft, None, law)
            want = reference.speculative.speculate(z + bias, tokens, draft, None, law)
            assert torch.equal(seen[0], want[0])
            assert (seen[1] <= 1).all()
