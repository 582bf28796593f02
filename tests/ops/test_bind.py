"""Binding: the arguments of a decision leave it checked, once, as every backend takes them."""

import math
import sys

import pytest
import torch

import rskernels
from rskernels._torch import Call
from rskernels._torch.fast_path import is_plain
from rskernels.law import Law
from rskernels.ops.bind import bind

LOGITS, TARGETS = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.arange(4)
REST = {
    "targets": TARGETS,
    "temperature": 1,
    "log_space": 0,
    "seed": 2**64 - 1,
    "generator": None,
    "row_offset": 2,
    "ignore_index": -1,
    "model_is_target": True,
}


def call(density=0.5, M=None, **changes):
    return bind("p_hat", changes.pop("logits", LOGITS), density, M, **(REST | changes))


def test_numbers_become_the_law():
    (logits, targets, law), is_direct, layout = call()
    assert (logits is LOGITS, targets is TARGETS, is_direct) == (True, True, True)
    assert layout is None
    assert law == Law(0.5, 1.0, -1, 2, 1.0, False, True, -1)
    assert [type(value) for value in law] == [float, float, int, int, float, bool, bool, int]


@pytest.mark.parametrize("targets", [TARGETS, None], ids=["target", "dense"])
def test_records_have_all_their_fields(targets):
    bound = call(targets=targets)
    assert len(bound) == len(Call._fields)
    assert len(bound.arguments[2]) == len(Law._fields)


def test_tensors_stay_and_are_detached():
    density = torch.rand(4, requires_grad=True)
    M, seed, temperature = torch.tensor(2.0), torch.tensor([3]), torch.rand(4)
    law = call(density, M, seed=seed, temperature=temperature).arguments[2]
    assert law.density.data_ptr() == density.data_ptr()
    assert not law.density.requires_grad
    assert law.M is M
    assert law.seed is seed
    assert law.temperature is temperature
    temperature.requires_grad_()
    assert not call(temperature=temperature).arguments[2].temperature.requires_grad


def test_a_seed_is_drawn_where_none_is_given():
    torch.manual_seed(0)
    first, second = (call(seed=None).arguments[2].seed for _ in range(2))
    torch.manual_seed(0)
    assert isinstance(first, int)
    assert first == call(seed=None).arguments[2].seed
    assert first != second


def test_how_a_row_is_read_is_left_out_where_it_is_read_whole():
    assert len(call().arguments) == 3
    assert call(is_lazy=True).arguments[3:] == (True, None)
    order = rskernels.ColumnOrder(torch.tensor([0]), 5)
    assert call(order=order).arguments[3:] == (False, order.blocks)


@pytest.mark.parametrize(
    "changes",
    [
        {"logits": torch.nn.Parameter(LOGITS)},
        {"targets": torch.nn.Parameter(TARGETS, requires_grad=False)},
        {"density": torch.nn.Parameter(torch.rand(4))},
        {"M": torch.nn.Parameter(torch.tensor(2.0))},
        {"seed": torch.nn.Parameter(torch.tensor(3), requires_grad=False)},
        {"temperature": torch.nn.Parameter(torch.ones(4))},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_no_plain_tensor_goes_to_the_dispatcher(changes):
    assert not call(**changes).is_direct


@pytest.mark.parametrize("value", [True, "1", 1j, torch.float32, [1.0]])
def test_only_numbers_and_nothing_stand_beside_plain_tensors(value):
    assert is_plain(LOGITS, None, 1.0, 3)
    assert not is_plain(LOGITS, value)


SPARSE = torch.rand(4).to_sparse()
ELSEWHERE = torch.empty(4, device="meta")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"density": SPARSE}, TypeError, "p_hat must be a strided tensor"),
        ({"M": SPARSE}, TypeError, "M must be a strided tensor"),
        ({"temperature": SPARSE}, TypeError, "temperature must be a strided tensor"),
        ({"temperature": ELSEWHERE}, ValueError, "temperature is on meta, the decisions on cpu"),
        ({"density": ELSEWHERE}, ValueError, "p_hat is on meta, the decisions on cpu"),
        ({"M": ELSEWHERE}, ValueError, "M is on meta, the decisions on cpu"),
        ({"targets": ELSEWHERE.long()}, ValueError, "targets are on meta, logits on cpu"),
        ({"seed": ELSEWHERE[:1].long()}, ValueError, "the seed tensor is on meta"),
    ],
)
def test_a_tensor_elsewhere_is_refused_beside_plain_ones(changes, error, message):
    with pytest.raises(error, match=message):
        call(**changes)


def test_plain_numbers_are_not_looked_at_twice():
    # On few rows each of Python's calls is felt.
    called = []
    for call in (
        lambda: rskernels.accept_mask(LOGITS, 0.5, 2.0, targets=TARGETS, seed=1),
        lambda: rskernels.bernoulli_mask(LOGITS, 1.0, seed=1),
    ):
        call()
        sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name))
        try:
            call()
        finally:
            sys.setprofile(None)
    assert {"accept_mask", "bernoulli_mask"} <= set(called)
    assert not {"as_integer", "__instancecheck__"} & set(called)


@pytest.mark.parametrize("name", ["accept_mask", "verify_mask"])
@pytest.mark.parametrize("log_space", [False, True])
@pytest.mark.parametrize("kind", ["number", "vector", "float64 vector", "entries"])
def test_the_short_way_of_dense_calls_decides_as_the_long_one(name, log_space, kind):
    decide = getattr(rskernels, name)
    logits = torch.randn(7, 10, generator=torch.Generator().manual_seed(0))
    density = {
        "number": 0.2,
        "vector": torch.linspace(0.1, 0.3, 10),
        "float64 vector": torch.linspace(0.1, 0.3, 10, dtype=torch.float64),
        "entries": torch.rand(7, 10, generator=torch.Generator().manual_seed(1)),
    }[kind]
    law = {"targets": None, "temperature": 0.8, "log_space": log_space, "row_offset": 3}
    short = decide(logits, density, 0.4, seed=5, **law)
    # A tensor as M or as seed goes the long way.
    assert torch.equal(short, decide(logits, density, torch.tensor(0.4), seed=5, **law))
    assert torch.equal(short, decide(logits, density, 0.4, seed=torch.tensor(5), **law))
    torch.manual_seed(1)
    drawn = decide(logits, density, 0.4, **law)
    torch.manual_seed(1)
    assert torch.equal(drawn, decide(logits, density, torch.tensor(0.4), **law))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"p_hat": torch.ones(9)}, ValueError),
        ({"p_hat": -1.0}, ValueError),
        ({"p_hat": math.nan}, ValueError),
        ({"p_hat": torch.ones(10, dtype=torch.int64)}, TypeError),
        ({"M": 0.0}, ValueError),
        ({"M": math.nan}, ValueError),
        ({"temperature": math.nan}, ValueError),
        ({"temperature": 0.0}, ValueError),
        ({"row_offset": -1}, ValueError),
        ({"seed": 2**64}, ValueError),
        ({"ignore_index": 0.5}, TypeError),
        ({"logits": torch.zeros(7, 0)}, ValueError),
        ({"logits": torch.zeros(7, 10, dtype=torch.int64)}, TypeError),
    ],
)
def test_the_short_way_of_dense_calls_lets_nothing_pass(arguments, error):
    plain = {"logits": torch.zeros(7, 10), "p_hat": 0.2, "M": 0.4, "seed": 5}
    with pytest.raises(error):
        rskernels.accept_mask(**{**plain, **arguments})
