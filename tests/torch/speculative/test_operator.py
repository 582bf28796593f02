"""The speculative step as an operator of torch: checked, traced, exported and refused."""

import pytest
import torch

import rskernels

from ...support.bits import same_bits

R, K, V, D = 4, 3, 40, 8
OPS = torch.ops.rskernels


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(dtype=torch.float32):
    target = 2 * draw(R, K + 1, V)
    draft = target[:, :K] + draw(R, K, V, seed=1)
    return target.to(dtype), draft.argmax(-1), draft.to(dtype)


NUMBERS = (None, 0.7, None, 5, None, 0.9, None, 3, None, 5, False, False)
TENSORS = (
    torch.tensor([0.0, 1.0, 2.0, 0.5], dtype=torch.float64), 1.0, torch.tensor([0, 3, 5, 1]), 0,
    torch.full((R,), 0.9, dtype=torch.float64), 1.0, torch.arange(R), 0, torch.arange(R), 0,
    True, True,
)  # fmt: skip


def certain(dtype):
    """Return a step that accepts everything: what is behind is NaN, which opcheck takes for wrong.

    With it, hidden states and a weight whose logits are the target's.
    """
    tokens = torch.arange(R * (K + 1)).view(R, K + 1) % V
    weight = torch.eye(V).to(dtype)
    target = 99.0 * weight[tokens]
    return target, tokens[:, :K], target[:, :K], weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype):
    target, tokens, draft, _ = certain(dtype)
    lengths = torch.full((R,), K, dtype=torch.int32)
    check, op = torch.library.opcheck, OPS.speculate.default
    if dtype == torch.float32:
        check(op, (target, tokens, draft, None, *NUMBERS))
        strided = target.transpose(0, 1).contiguous().transpose(0, 1)
        check(op, (strided, tokens, None, lengths, *TENSORS))
        numbers = torch.tensor([0.7, 0.9], dtype=torch.float64)
        check(OPS.dynamic_speculate.default, (numbers, target, tokens, draft, None, *NUMBERS))
    else:
        check(op, (target, tokens, draft, lengths, *TENSORS))


def test_opcheck_of_hidden_states():
    target, tokens, draft, weight = certain(torch.float32)
    product = (target.flatten(0, 1), weight, None, 1.0, 0.0, None, None, 0.0)
    for values in (TENSORS, (None, 1.0, None, 0, None, 1.0, *NUMBERS[6:])):
        arguments = (*product, tokens, draft, None, *values)
        torch.library.opcheck(OPS.linear_speculate.default, arguments)


def test_a_compiled_call_takes_the_same_step():
    target, tokens, draft = inputs()
    hidden, weight = draw(R, K + 1, D), draw(V, D, seed=2)

    def step(target, tokens, draft, hidden, weight, seed):
        z = rskernels.LinearLogits(hidden, weight)
        law = {"temperature": 0.8, "top_k": 9, "seed": seed}
        return (
            *rskernels.speculative_sample(target, tokens, draft, method="block", **law),
            *rskernels.speculative_sample(z, tokens, draft, top_p=0.9, seed=seed),
        )

    arguments = (target, tokens, draft, hidden, weight)
    fast = torch.compile(step, fullgraph=True)
    for number in (1, 2):
        seed = torch.tensor([number])
        assert same_bits(fast(*arguments, seed), step(*arguments, seed))


def test_settings_that_change_compile_no_graph_anew():
    target, tokens, draft = inputs()
    counted = torch._dynamo.testing.CompileCounter()

    def step(temperature, top_p):
        return rskernels.speculative_sample(
            target, tokens, draft, temperature=temperature, top_p=top_p, seed=1
        ).tokens

    fast = torch.compile(step, backend=counted, fullgraph=True)
    for temperature in (0.5, 0.6, 0.7, 0.8):
        assert torch.equal(fast(temperature, 0.9), step(temperature, 0.9))
    assert counted.frame_count <= 2


def test_nothing_carries_a_gradient():
    target, tokens, draft = inputs()
    target.requires_grad_()
    seen = rskernels.speculative_sample(target, tokens, draft.requires_grad_(), seed=1)
    assert not any(part.requires_grad for part in seen)


def test_the_dispatcher_takes_the_same_step():
    target, tokens, draft = inputs()
    seen = rskernels.speculative_sample(target, tokens, draft, seed=1, top_k=5)
    with torch.profiler.profile():
        told = rskernels.speculative_sample(target, tokens, draft, seed=1, top_k=5)
    assert same_bits(told, seen)
    torch.manual_seed(3)
    own = rskernels.speculative_sample(target, tokens, draft)
    torch.manual_seed(3)
    assert same_bits(rskernels.speculative_sample(target, tokens, draft), own)


def test_vmap_is_refused():
    target, tokens, draft = inputs()
    many = (target[None], tokens[None], draft[None])
    with pytest.raises(NotImplementedError, match="no vmap"):
        torch.func.vmap(lambda *given: rskernels.speculative_sample(*given, seed=1).tokens)(*many)
