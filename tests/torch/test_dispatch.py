"""Calls that torch's dispatcher would only pass on: whoever listens to this thread still hears."""

import dataclasses
import warnings

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import rskernels
from rskernels._torch import devices, operations
from rskernels._torch.fast_path import is_idle, is_plain
from rskernels.ops import decide, ratios, sequences

N, V = 64, 5
CALLS = {
    "mask": lambda z, targets: rskernels.accept_mask(z, 0.2, 1.5, targets=targets, seed=3),
    "decide": lambda z, targets: rskernels.accept(z, 0.2, 1.5, targets=targets, seed=3).mask,
    "bernoulli": lambda z, targets: rskernels.bernoulli_mask(z, 1.5, seed=3),
    "decide_ratios": lambda z, targets: rskernels.bernoulli(z, 1.5, seed=3).mask,
    "decide_sequences": lambda z, targets: rskernels.accept_sequences(z, 1.5, seed=3).mask,
    "accept_prefix": lambda z, targets: rskernels.accept_prefix(z, 1.5, seed=3),
}
# Where the record of each operation is looked up.
MODULES = {
    "mask": decide,
    "decide": operations,
    "bernoulli": ratios,
    "decide_ratios": ratios,
    "decide_sequences": sequences,
    "accept_prefix": sequences,
}


class DispatchMode(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


class FunctionMode(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


@pytest.fixture(params=CALLS)
def operator(request):
    return request.param


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, V, generator=generator), torch.arange(N) % V


@pytest.mark.parametrize("mode", [DispatchMode, FunctionMode])
def test_a_mode_sees_the_operator(mode, operator, batch):
    alone = CALLS[operator](*batch)
    with mode() as seen:
        assert not is_idle()
        mask = CALLS[operator](*batch)
    assert f"rskernels.{operator}.default" in seen.names
    assert torch.equal(mask, alone)


def test_a_profiler_sees_the_operator(operator, batch):
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        CALLS[operator](*batch)
    assert f"rskernels::{operator}" in {event.key for event in seen.key_averages()}


def test_a_traced_graph_holds_the_operator(operator, batch):
    with warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(CALLS[operator], batch)
    assert f"rskernels::{operator}" in str(traced.graph)
    other = torch.zeros(N, V)
    assert torch.equal(traced(other, batch[1]), CALLS[operator](other, batch[1]))


def test_without_listeners_the_kernels_are_called_directly(operator, batch, monkeypatch):
    called = []
    kernels = devices.cpu_kernels()
    kernel = getattr(kernels, operator)
    monkeypatch.setattr(
        kernels, operator, lambda *arguments: called.append(arguments) or kernel(*arguments)
    )
    module, name = MODULES[operator], operator.upper()
    monkeypatch.setattr(module, name, dataclasses.replace(getattr(module, name), eager=None))
    assert is_idle()
    CALLS[operator](*batch)
    assert len(called) == 1


def test_logits_that_are_negated_when_read(operator, batch):
    logits, targets = batch
    negated = torch.complex(torch.zeros_like(logits), -logits).conj().imag
    assert negated.is_neg()
    assert not is_plain(negated)
    assert torch.equal(CALLS[operator](negated, targets), CALLS[operator](logits, targets))


def test_logits_without_memory(operator, batch):
    zeros = torch._efficientzerotensor(N, V)
    assert not is_plain(zeros)
    expected = CALLS[operator](torch.zeros(N, V), batch[1])
    assert torch.equal(CALLS[operator](zeros, batch[1]), expected)


def test_logits_that_wrap_others(operator, batch):
    logits, targets = batch
    kept = []
    torch.func.grad(lambda z: (kept.append(z), z.sum())[1])(logits)
    for wrapped in (torch._to_functional_tensor(logits), kept[0]):
        assert type(wrapped) is torch.Tensor
        assert not is_plain(wrapped)
        assert torch.equal(CALLS[operator](wrapped, targets), CALLS[operator](logits, targets))


def test_a_parameter_is_dispatched(operator, batch):
    parameter = torch.nn.Parameter(batch[0])
    assert not is_plain(parameter)
    mask = CALLS[operator](parameter, batch[1])
    assert not mask.requires_grad
    assert torch.equal(mask, CALLS[operator](*batch))
