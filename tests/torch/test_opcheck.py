"""torch.library.opcheck of every operator: schema, autograd registration, fakes, dynamic shapes."""

import pytest
import torch

import rskernels  # noqa: F401  (registers the operators)

OPS = torch.ops.rskernels
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
# What density, M and seed are does not depend on the dtype, so each dtype takes one kind.
KINDS = [("float32", "tensors"), ("bfloat16", "numbers"), ("float64", "defaults")]


def check(name, *arguments):
    torch.library.opcheck(getattr(OPS, name).default, arguments)


@pytest.mark.parametrize(("dtype", "kind"), KINDS)
@pytest.mark.parametrize("form", ["target", "dense"])
@pytest.mark.parametrize("op", ["mask", "decide"])
def test_decisions(draw_inputs, op, form, kind, layout, dtype):
    logits, targets = draw_inputs(layout, DTYPES[dtype])
    decisions = targets.shape if form == "target" else logits.shape
    density = torch.full(decisions, 0.2, dtype=logits.dtype)
    head = (logits, targets if form == "target" else None)
    if kind == "numbers":
        values = (None, -2.0, None, -1.0, None, 3)
        check(op, *head, *values, *(5, None, 0.7, True, False, -1))
    elif kind == "tensors":
        M, seed = torch.tensor(2.0), torch.tensor([3])
        lazy = (-100, True, torch.tensor([0])) if (op, form) == ("mask", "target") else ()
        values = (density, 0.0, M, 0.0, seed, 0)
        temperature = torch.full(targets.shape, 0.7)
        check(op, *head, *values, *(5, temperature, 1.0, False, True), *lazy)
    else:
        check(op, *head, density)


@pytest.mark.parametrize(("dtype", "kind"), KINDS)
@pytest.mark.parametrize("op", ["bernoulli", "decide_ratios"])
def test_ratios(draw_inputs, op, kind, layout, dtype):
    log_ratio, _ = draw_inputs(layout, DTYPES[dtype])
    if kind == "numbers":
        arguments = (None, 2.0, None, 3, 5, 1, False)
    elif kind == "defaults":
        arguments = (None, 1.0, torch.tensor(3), 0, 0, 0, False)
    else:
        M = torch.full(log_ratio.shape, 0.5)
        ids = torch.arange(log_ratio.numel()).view(log_ratio.shape).neg()
        arguments = (M, 0.0, torch.tensor([3]), 0, 0, 1, True, ids)
    check(op, log_ratio, *arguments)


@pytest.mark.parametrize("dtype", DTYPES)
def test_target_log_prob(draw_inputs, layout, dtype):
    logits, targets = draw_inputs(layout, DTYPES[dtype])
    targets = targets.int() if dtype == "bfloat16" else targets
    each = torch.full(targets.shape, 0.7) if dtype == "float32" else None
    check("target_log_prob", logits.detach().requires_grad_(), targets, each, 0.7, -100)
    with torch.no_grad():
        log_prob, totals = OPS.target_log_prob(logits, targets, each, 0.7, -100)
    upstream = torch.ones_like(log_prob)
    check("target_log_prob_backward", upstream, logits, targets, totals, each, 0.7, -100)


@pytest.mark.parametrize(("dtype", "kind"), KINDS)
def test_decisions_whose_log_prob_has_a_gradient(draw_inputs, kind, layout, dtype):
    logits, targets = draw_inputs(layout, DTYPES[dtype])
    leaf = logits.detach().requires_grad_()
    if kind == "numbers":
        values = (None, -2.0, None, -1.0, None, 3)
        check("decide_with_totals", leaf, targets, *values, *(5, None, 0.7, True, False, -1))
    elif kind == "tensors":
        density, temperature = torch.full(targets.shape, 0.2), torch.full(targets.shape, 0.7)
        values = (density, 0.0, torch.tensor(2.0), 0.0, torch.tensor([3]), 0)
        rest = (5, temperature, 1.0, False, True)
        check("decide_with_totals", leaf, targets, *values, *rest)
    else:
        density = torch.full(targets.shape, 0.2, dtype=logits.dtype)
        check("decide_with_totals", leaf, targets, density)


@pytest.mark.parametrize("where", ["contiguous", "transposed", "no-rows"])
@pytest.mark.parametrize("form", ["target", "dense"])
@pytest.mark.parametrize("op", ["dynamic_mask", "dynamic_decide"])
def test_decisions_of_dynamic_numbers(draw_inputs, op, form, where):
    logits, targets = draw_inputs(where)
    numbers = torch.tensor([0.2, 2.0, 0.7], dtype=torch.float64)
    targets = targets if form == "target" else None
    rest = (None, 1.0, None, 1.0, None, 3, 5, None, 1.0, False, False, -100)
    lazy = (False, None) if op == "dynamic_mask" else ()
    check(op, numbers, logits, targets, *rest, *lazy)


@pytest.mark.parametrize("where", ["contiguous", "transposed", "no-rows"])
def test_a_log_prob_with_a_gradient_of_dynamic_numbers(draw_inputs, where):
    logits, targets = draw_inputs(where)
    numbers = torch.tensor([0.2, 2.0, 0.7], dtype=torch.float64)
    rest = (None, 1.0, None, 1.0, None, 3, 5, None, 1.0, False, False, -100)
    leaf = logits.detach().requires_grad_()
    check("dynamic_decide_with_totals", numbers, leaf, targets, *rest)


@pytest.mark.parametrize("where", ["contiguous", "transposed", "no-rows"])
@pytest.mark.parametrize("op", ["bernoulli", "decide_ratios"])
def test_ratios_to_a_dynamic_number(draw_inputs, op, where):
    numbers = torch.tensor([0.7], dtype=torch.float64)
    rest = (None, 1.0, None, 3, 5, 1, False, None)
    check(f"dynamic_{op}", numbers, draw_inputs(where)[0], *rest)


@pytest.mark.parametrize("where", ["contiguous", "transposed", "no-rows"])
def test_target_log_prob_of_dynamic_numbers(draw_inputs, where):
    logits, targets = draw_inputs(where)
    numbers = torch.tensor([0.7], dtype=torch.float64)
    leaf = logits.detach().requires_grad_()
    check("dynamic_target_log_prob", numbers, leaf, targets, None, 1.0, -100)
    with torch.no_grad():
        log_prob, totals = OPS.target_log_prob(logits, targets, None, 0.7, -100)
    arguments = (numbers, torch.ones_like(log_prob), logits, targets, totals, None, 1.0, -100)
    check("dynamic_target_log_prob_backward", *arguments)


SEQUENCES = {
    "padded": (torch.zeros(3, 5), torch.ones(3, 5).bool(), None),
    "packed": (torch.zeros(15, dtype=torch.float64), None, torch.tensor([0, 5, 7, 15])),
    "strided": (torch.zeros(5, 3).T, None, None),
}


@pytest.mark.parametrize("where", SEQUENCES)
@pytest.mark.parametrize("op", ["decide_sequences", "accept_prefix"])
def test_sequences(op, where):
    log_ratio, mask, starts = SEQUENCES[where]
    ids = torch.tensor([7, -1, 2**62]) if where == "padded" else None
    rest = ("mean_k3", ids) if op == "decide_sequences" else (ids,)
    M = torch.full((3,), 0.5) if where == "padded" else None
    seed = None if where == "packed" else torch.tensor([3])
    law = (M, 2.0, seed, 3, 5, 5, where == "packed")
    check(op, log_ratio, *law, mask, starts, *rest)
    numbers = torch.tensor([0.7], dtype=torch.float64)
    check(f"dynamic_{op}", numbers, log_ratio, *law, mask, starts, *rest)
