"""Steps on logits that are not stored: those of the definition, for each request alone."""

import pytest
import torch

from rskernels.kernels import reference
from rskernels.kernels.product import Product
from rskernels.law.speculation import Speculation


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
