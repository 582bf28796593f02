"""A vocabulary cut over ranks accepts at its rate, and a fault in putting it together is found."""

import itertools
import math

import pytest
import torch

import rskernels
from rskernels.distributed import vocabulary
from rskernels.distributed.vocabulary import Part
from rskernels.kernels.product import Product

from .forms import TEMPERATURE
from .intervals import assert_inside, binomial

RATIO, M = 5 / 16, 1.7
DRAWS = 1 << 15
EDGES = [0, 100, 350, 700]  # of the ranks' columns


def draw_product():
    """Return a product whose logits are larger on one rank than on the others."""
    generator = torch.Generator().manual_seed(1)
    bias = torch.randn(700, generator=generator)
    bias[350:] += 1.0
    hidden, weight = (torch.randn(shape, generator=generator) for shape in ((8, 16), (700, 16)))
    return Product(hidden, weight / 4, bias, 1.0, 0.0, None)


def combined(kernels, monkeypatch, product, targets):
    """Return what ranks know together, that gather one after the other in one process."""
    gathered = []

    def gather(row, length, group):
        assert len(row) == length
        gathered.append(row)
        return torch.stack(gathered)

    monkeypatch.setattr(vocabulary, "all_gather", gather)
    seed = torch.tensor([5])
    for begin, end in itertools.pairwise(EDGES):
        own = product._replace(weight=product.weight[begin:end], bias=product.bias[begin:end])
        is_own = (targets >= begin) & (targets < end)
        columns = torch.where(is_own, targets - begin, 0)
        log_prob, totals = kernels.linear.target_log_prob(own, columns, TEMPERATURE, -100)
        whole = vocabulary.combine(Part(log_prob, totals, is_own), TEMPERATURE, seed, None)
    assert whole.is_own.all()
    return whole.log_prob


def check_rate(kernels, monkeypatch, seed):
    """Sensitive to how references, totals and targets of ranks are put together."""
    product = draw_product()
    z = product.hidden.double() @ product.weight.double().T + product.bias
    # Every rank has some row's target, in the likelier half of its own columns.
    targets = torch.tensor([EDGES[row % 3] + 7 * row for row in range(8)])
    log_q = (z / TEMPERATURE).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    log_prob = combined(kernels, monkeypatch, product, targets)
    ratio = math.log(RATIO * M) + log_q - log_prob  # log p - log q
    which = torch.arange(DRAWS) % 8
    mask = rskernels.bernoulli_mask(ratio[which], M, seed=seed)
    assert_inside("T1", mask.sum(), binomial(DRAWS, RATIO))


@pytest.fixture
def kernels(backend_of):
    return backend_of("cpu").kernels


def test_t1_rate_of_ranks_together(kernels, monkeypatch, seed):
    check_rate(kernels, monkeypatch, seed)


total = vocabulary._total


def without_largest(references, totals):
    return references.amax(0), totals.sum(0)


def of_largest_alone(references, totals):
    top, _ = total(references, totals)
    return top, totals.gather(0, references.argmax(0)[None])[0]


def of_first_reference(references, totals):
    return references[0], total(references, totals)[1]


@pytest.mark.parametrize("fault", [without_largest, of_largest_alone, of_first_reference])
def test_a_planted_fault_is_found(kernels, monkeypatch, seed, fault):
    monkeypatch.setattr(vocabulary, "_total", fault)
    with pytest.raises(AssertionError, match=r"^T1"):
        check_rate(kernels, monkeypatch, seed)
