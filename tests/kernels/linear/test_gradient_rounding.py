"""How exact gradients are where little is left of them, and what changes no bit of them."""

import pytest
import torch
from torch.nn import functional

from ...support.bits import same_bits
from .gradients import backward, derived, draw_upstream, errors, truth
from .products import draw_case, draw_product


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neither_threads_nor_other_rows_change_a_gradient(dtype):
    product = draw_product(700, 40, 5000, dtype, "all")
    targets, _ = draw_case(product)
    upstream = draw_upstream(targets, dtype)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = backward(product, targets, upstream)
    finally:
        torch.set_num_threads(threads)
    whole = backward(product, targets, upstream)
    assert same_bits([alone.hidden, alone.weight], [whole.hidden, whole.weight])
    some = slice(33, 58)
    part = product._replace(hidden=product.hidden[some])
    assert same_bits([backward(part, targets[some], upstream[some]).hidden], [whole.hidden[some]])


@pytest.mark.parametrize("surplus", [8.0, 14.0, 30.0])
def test_of_confident_rows_no_less_exact_than_of_stored_logits(surplus):
    # Of 1 - q little is left, and any error of q is much of it.
    product = draw_product(64, 256, 500)
    targets = torch.arange(64)
    weight = product.weight.clone()
    hidden = product.hidden
    weight[:64] += surplus * hidden / hidden.square().sum(1, keepdim=True)
    product = product._replace(weight=weight)
    upstream = torch.ones(64)
    want = truth(product, targets, upstream)

    def stored(made):
        return functional.log_softmax(made.hidden @ made.weight.T, 1)[range(64), targets]

    ours, eager = (
        errors(backward(product, targets, upstream)[:2], want[:2]),
        errors(derived(product, upstream, stored)[:2], want[:2]),
    )
    assert max(ours) <= 2.0 * max(eager)


def test_a_vocabulary_of_one_has_no_gradient():
    product = draw_product(20, 40, 1)
    got = backward(product, torch.zeros(20, dtype=torch.int64), torch.ones(20))
    assert got.hidden.eq(0).all()
    assert got.weight.eq(0).all()
