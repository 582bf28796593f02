"""What goes in and comes out: gradients, memory, views, meta and fake tensors, inference mode."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import rskernels

from ..support.bits import same_bits
from .test_subclasses import call_all

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def assert_alike(real, shaped):
    for a, b in zip(real, shaped, strict=True):
        assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


@pytest.mark.parametrize("dtype", DTYPES)
def test_meta_tensors_have_the_shapes_and_dtypes_of_results(draw_inputs, layout, dtype):
    logits, targets = draw_inputs(layout, dtype)
    shaped = call_all(logits.to("meta"), targets.to("meta"))
    assert all(part.is_meta for part in shaped)
    assert_alike(call_all(logits, targets), shaped)
    drawn = call_all(logits.to("meta"), targets.to("meta"), seed=None)
    assert_alike(shaped, drawn)


def test_fake_tensors_have_the_shapes_and_dtypes_of_results(draw_inputs, layout):
    logits, targets = draw_inputs(layout)
    mode = FakeTensorMode()
    fakes = [mode.from_tensor(part) for part in (logits, targets)]
    tensors = torch.tensor(0.2), torch.tensor(1.5), torch.tensor([3])
    for arguments in ((), (0.2, 1.5, None), [mode.from_tensor(part) for part in tensors]):
        with mode:
            shaped = call_all(*fakes, *arguments)
        assert all(isinstance(part, FakeTensor) for part in shaped)
        assert_alike(call_all(logits, targets), shaped)


def test_a_device_context_does_not_move_the_results(draw_inputs):
    arguments = draw_inputs()
    with torch.device("meta"):
        assert same_bits(call_all(*arguments), call_all(*arguments))


def test_a_default_dtype_does_not_change_the_results(draw_inputs):
    arguments = draw_inputs()
    want = call_all(*arguments)
    torch.set_default_dtype(torch.float64)
    try:
        assert same_bits(call_all(*arguments), want)
    finally:
        torch.set_default_dtype(torch.float32)


def test_int32_and_int64_targets_decide_alike(draw_inputs, layout):
    logits, targets = draw_inputs(layout)
    narrow = targets.int()
    assert same_bits(call_all(logits, narrow), call_all(logits, targets))
    gradients = []
    for index in (narrow, targets, torch.stack([narrow, narrow + 1], -1)[..., 0]):
        leaf = logits.clone().requires_grad_()
        rskernels.target_log_prob(leaf, index).sum().backward()
        gradients.append(leaf.grad)
    assert same_bits(gradients[0], gradients[1])
    assert same_bits(gradients[0], gradients[2])


def test_masks_carry_no_gradient(draw_inputs):
    logits, targets = draw_inputs()
    logits.requires_grad_()
    p_hat = torch.full(targets.shape, 0.2, requires_grad=True)
    M = torch.tensor(1.5, requires_grad=True)
    for form in (targets, None):
        density = p_hat if form is not None else p_hat[..., None]
        seen = rskernels.accept(logits, density, M, targets=form, seed=0)
        # With targets, log_prob has that of target_log_prob.
        assert [part.requires_grad for part in seen] == [False, form is not None, *[False] * 3]
        assert not rskernels.verify_mask(logits, density, M, targets=form, seed=0).requires_grad
    assert not rskernels.bernoulli_mask(p_hat.log(), M, seed=0).requires_grad
    assert rskernels.target_log_prob(logits, targets).requires_grad


def test_inputs_are_not_changed(draw_inputs):
    logits, targets = draw_inputs()
    p_hat, M, seed = torch.full(targets.shape, 0.2), torch.tensor([1.5]), torch.tensor([3])
    arguments = (logits, targets, p_hat, M, seed)
    before = tuple(part.clone() for part in arguments)
    rskernels.accept(logits, p_hat, M, targets=targets, seed=seed)
    rskernels.accept(logits, p_hat[..., None], M, seed=seed)
    rskernels.bernoulli_mask(p_hat, M, seed=seed)
    rskernels.target_log_prob(logits.requires_grad_(), targets).sum().backward()
    assert same_bits(arguments, before)


def test_results_do_not_share_memory(draw_inputs):
    logits, targets = draw_inputs()
    seen = (*call_all(logits, targets), logits, targets)
    places = {part.untyped_storage().data_ptr() for part in seen}
    assert len(places) == len(seen)


def test_negated_views_are_read_as_what_they_are():
    # The imaginary part of a conjugate is a view whose sign is held aside.
    logits = torch.randn(6, 5, dtype=torch.complex64).conj().imag
    assert logits.is_neg()
    targets = torch.arange(6) % 5
    assert same_bits(call_all(logits, targets), call_all(logits.resolve_neg().clone(), targets))


def test_the_same_seed_gives_the_same_mask(draw_inputs):
    arguments = draw_inputs()
    want = call_all(*arguments, seed=5)
    for seed in (5, torch.tensor(5), torch.tensor([[5]]), torch.tensor([4, 5])[1:]):
        assert same_bits(call_all(*arguments, seed=seed), want)
    assert not same_bits(call_all(*arguments, seed=6), want)


def test_inference_mode(draw_inputs):
    logits, targets = draw_inputs()
    want = call_all(logits, targets)
    leaf = logits.clone().requires_grad_()
    with torch.inference_mode():
        made_inside = logits.clone()
        for tensor in (logits, leaf, made_inside):
            seen = call_all(tensor, targets)
            assert same_bits(seen, want)
            assert all(part.is_inference() and not part.requires_grad for part in seen)
    assert same_bits(call_all(made_inside, targets), want)
    with torch.no_grad():
        assert not rskernels.target_log_prob(leaf, targets).requires_grad
