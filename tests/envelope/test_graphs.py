"""Envelopes and traced graphs: state that changes has no place in one, and that is said."""

import copy

import pytest
import torch

from rskernels import accept, bernoulli_mask
from rskernels.envelope import Envelope, estimate_M

ENVELOPE = Envelope("quantile", level=0.9)
ENVELOPE.update(torch.arange(100.0))
LOGITS, TARGETS = torch.zeros(4, 10), torch.arange(4)

CALLS = {
    "update": lambda x: ENVELOPE.update(x),
    "M": lambda x: x * ENVELOPE.M(),
    "log_M": lambda x: x * ENVELOPE.log_M(torch.zeros(4, dtype=torch.int64)),
    "thin": lambda x: ENVELOPE.thin(x, 1.0, seed=0),
    "counts": lambda x: x * ENVELOPE.seen,
    "report": lambda x: x * ENVELOPE.report().overall["delta"],
    "merge": lambda x: ENVELOPE.merge(ENVELOPE),
    "state_dict": lambda x: ENVELOPE.state_dict(),
    "to_bytes": lambda x: ENVELOPE.to_bytes(),
    "load_state_dict": lambda x: ENVELOPE.load_state_dict({}),
    "all_reduce": lambda x: ENVELOPE.all_reduce(),
    "copy": lambda x: (copy.copy(ENVELOPE), x)[1],
    "deepcopy": lambda x: (copy.deepcopy(ENVELOPE), x)[1],
    "repr": lambda x: (repr(ENVELOPE), x)[1],
    "new": lambda x: Envelope(),
    "estimate_M": lambda x: x * estimate_M(LOGITS, 0.1, targets=TARGETS),
}
MESSAGE = "call it outside of the graph"


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", CALLS)
def test_a_whole_graph_refuses_it_and_says_what_to_do(name):
    before = ENVELOPE.to_bytes()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=MESSAGE):
        torch.compile(CALLS[name], backend="eager", fullgraph=True)(torch.ones(4))
    assert ENVELOPE.to_bytes() == before


def test_a_graph_that_may_break_calls_it_once():
    envelope = Envelope()
    envelope.update(torch.zeros(4))

    @torch.compile(backend="eager")
    def step(x):
        seen = accept(LOGITS, 0.1, envelope.M(), targets=TARGETS, seed=1)
        envelope.update(seen.log_ratio + x)
        return seen.mask

    for calls in range(1, 4):
        step(torch.ones(4))
        assert envelope.seen.item() == 4 + 4 * calls
    assert envelope.log_M().item() == pytest.approx(1.0, abs=1e-5)


def test_a_graph_takes_M_as_a_tensor_and_its_options_as_they_are():
    @torch.compile(backend="eager", fullgraph=True)
    def decide(log_ratio, M):
        assert (ENVELOPE.policy, ENVELOPE.groups, ENVELOPE.level) == ("quantile", 1, 0.9)
        return bernoulli_mask(log_ratio, M, seed=3)

    ratios = torch.randn(50)
    for M in (ENVELOPE.M(), 2 * ENVELOPE.M()):
        assert torch.equal(decide(ratios, M), bernoulli_mask(ratios, M, seed=3))


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_graph_refuses_it(strict):
    class Scaled(torch.nn.Module):
        def forward(self, x):
            return x * ENVELOPE.M()

    with pytest.raises(Exception, match=MESSAGE):
        torch.export.export(Scaled(), (torch.ones(4),), strict=strict)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
@pytest.mark.parametrize("name", ["M", "update"])
def test_torch_jit_trace_refuses_it(name):
    with pytest.raises(NotImplementedError, match=MESSAGE):
        torch.jit.trace(lambda x: (CALLS[name](x), x)[1], torch.ones(4))
    ENVELOPE.M()


def test_transforms_take_M_and_show_no_rows():
    M = torch.vmap(lambda x: x * ENVELOPE.M())(torch.ones(4))
    assert torch.equal(M, ENVELOPE.M().expand(4))
    gradient = torch.func.grad(lambda x: (x * ENVELOPE.M()).sum())(torch.ones(4).double())
    assert torch.equal(gradient, ENVELOPE.M().expand(4))
    before = ENVELOPE.to_bytes()
    with pytest.raises(ValueError, match="no values to take M from"):
        torch.vmap(lambda x: (ENVELOPE.update(x), x)[1])(torch.ones(4))
    assert ENVELOPE.to_bytes() == before
