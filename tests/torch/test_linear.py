"""Logits that are not stored, as torch sees them: opcheck, graphs, autocast, transforms."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import rskernels
from rskernels import LinearLogits

from ..support.bits import same_bits

OPS = torch.ops.rskernels
DTYPES = [torch.float32, torch.bfloat16, torch.float64]
NAMES = ["linear_mask", "linear_decide", "linear_target_log_prob"]


def parts(rows=6, dtype=torch.float32, has_all=True):
    """Return the fields of a product, and targets."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    hidden, weight = draw(rows, 8), draw(40, 8)
    more = (draw(40), 0.9, 4.0, draw(2, 8), draw(40, 2), 0.5)
    nothing = (None, 1.0, 0.0, None, None, 0.0)
    return hidden, weight, *(more if has_all else nothing), torch.arange(rows) % 40


def law_of(name, values=(None, 0.02, None, 1.5, None, 3)):
    if name == "linear_target_log_prob":
        return (None, 0.7, -100)
    reading = (True, torch.tensor([0])) if name == "linear_mask" else ()
    return (*values, 5, None, 0.7, False, True, -100, *reading)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 6])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name, rows, dtype):
    operator = getattr(OPS, name).default
    torch.library.opcheck(operator, (*parts(rows, dtype), *law_of(name)))
    torch.library.opcheck(operator, (*parts(rows, dtype, has_all=False), *law_of(name)))


@pytest.mark.parametrize("name", NAMES[:2])
def test_opcheck_of_tensors(name):
    values = (torch.full((6,), 0.02), 0.0, torch.tensor(2.0), 0.0, torch.tensor([3]), 0)
    torch.library.opcheck(getattr(OPS, name).default, (*parts(), *law_of(name, values)))


@pytest.mark.parametrize("name", NAMES)
def test_opcheck_of_dynamic_numbers(name):
    numbers = [0.9, 4.0, 0.5, 0.7]
    if name != "linear_target_log_prob":
        numbers[3:3] = [0.02, 1.5]
    numbers = torch.tensor(numbers, dtype=torch.float64)
    operator = getattr(OPS, f"dynamic_{name}").default
    torch.library.opcheck(operator, (numbers, *parts(), *law_of(name)))


def decide(hidden, weight, bias, targets, M, scale=0.9):
    z = LinearLogits(hidden, weight, bias, scale=scale, softcap=4.0)
    law = {"targets": targets, "seed": 3}
    with torch.no_grad():
        log_prob = rskernels.target_log_prob(z, targets, temperature=0.8)
    return (
        rskernels.verify_mask(z, 0.02, M, **law),
        rskernels.accept_mask(z, 0.02, M, assume_finite=True, **law),
        *rskernels.accept(z, 0.02, M, **law),
        log_prob,
    )


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiled_in_one_graph(compiled, backend):
    hidden, weight, bias, *_, targets = parts()
    weight = torch.nn.Parameter(weight)
    fast = compiled(decide, backend=backend)
    assert same_bits(fast(hidden, weight, bias, targets, 1.5), decide(
        hidden, weight, bias, targets, 1.5
    ))  # fmt: skip


def test_numbers_and_batches_change_in_one_graph(counted):
    fast, counter = counted(decide, dynamic=True)
    for N in (7, 20, 12):
        hidden, weight, bias, *_, targets = parts(N)
        given = (hidden, weight, bias, targets, 1.0 + N / 8, 0.5 + N / 10)
        assert same_bits(fast(*given), decide(*given))
    assert counter.frame_count == 1


def test_what_is_refused_is_refused_in_a_graph(compiled):
    def dense(hidden, weight):
        return rskernels.accept_mask(LinearLogits(hidden, weight), 0.1, 1.0)

    with pytest.raises(Exception, match="LinearLogits need targets"):
        compiled(dense)(*parts()[:2])


def test_exported():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(8, 40)

        def forward(self, hidden, targets):
            z = LinearLogits(hidden, self.head.weight, self.head.bias)
            return rskernels.verify_mask(z, 0.02, targets=targets, seed=5)

    model, given = Model(), (parts()[0], parts()[-1])
    exported = torch.export.export(model, given).module()
    assert torch.equal(exported(*given), model(*given))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_products_as_they_are(dtype):
    hidden, weight, bias, *_, targets = parts(30)
    want = decide(hidden, weight, bias, targets, 1.5)
    lora = (torch.ones(2, 8), torch.ones(40, 2), 0.3)
    with torch.no_grad():
        plain = rskernels.target_log_prob(LinearLogits(hidden, weight, lora=lora), targets)
        with torch.autocast("cpu", dtype):
            assert same_bits(decide(hidden, weight, bias, targets, 1.5), want)
            cast = rskernels.target_log_prob(LinearLogits(hidden, weight, lora=lora), targets)
    assert same_bits(cast, plain)


def test_the_precision_of_other_products_changes_nothing():
    hidden, weight, bias, *_, targets = parts(300)
    want = decide(hidden, weight, bias, targets, 1.5)
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("high", "medium"):
            torch.set_float32_matmul_precision(precision)
            assert same_bits(decide(hidden, weight, bias, targets, 1.5), want)
    finally:
        torch.set_float32_matmul_precision(before)


def test_transforms_are_refused():
    hidden, weight, *_, targets = parts()

    def mask(hidden):
        return rskernels.accept_mask(
            LinearLogits(hidden, weight), 0.1, 1.0, targets=targets[:1], seed=1
        )

    with pytest.raises(NotImplementedError, match="have no vmap"):
        torch.func.vmap(mask)(hidden[:, None])


def test_meta_tensors_have_shapes():
    hidden, weight, *_, targets = (
        part.to("meta") if isinstance(part, torch.Tensor) else part for part in parts()
    )
    seen = rskernels.accept(LinearLogits(hidden, weight), 0.1, 1.0, targets=targets, seed=1)
    assert [list(part.shape) for part in seen] == [[6], [6], [6], [4], [2]]


def live_parts(rows=6, dtype=torch.float32, has_all=True):
    """Return the fields of a product that require a gradient, and targets."""
    fields = parts(rows, dtype, has_all)
    return [part.requires_grad_() if is_floating(part) else part for part in fields]


def is_floating(part):
    return isinstance(part, torch.Tensor) and part.is_floating_point()


LAW = law_of("linear_decide")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("has_all", [False, True])
@pytest.mark.parametrize("rows", [0, 6])
def test_opcheck_of_gradients(rows, has_all, dtype):
    fields = live_parts(rows, dtype, has_all)
    torch.library.opcheck(OPS.linear_target_log_prob.default, (*fields, None, 0.7, -100))
    torch.library.opcheck(OPS.linear_decide_with_totals.default, (*fields, *LAW))
    fields = parts(rows, dtype, has_all)
    each = torch.full((rows,), 0.7)
    value, totals = OPS.linear_target_log_prob(*fields, each, 1.0, -100)
    arguments = (totals, [True, False, has_all, has_all, has_all], each, 1.0, -100)
    operator = OPS.linear_target_log_prob_backward.default
    torch.library.opcheck(operator, (torch.ones_like(value), *fields, *arguments))


def test_opcheck_of_gradients_at_dynamic_numbers():
    numbers = torch.tensor([0.9, 4.0, 0.5, 0.02, 1.5, 0.7], dtype=torch.float64)
    operator = OPS.dynamic_linear_decide_with_totals.default
    torch.library.opcheck(operator, (numbers, *live_parts(), *LAW))
    operator = OPS.dynamic_linear_target_log_prob.default
    torch.library.opcheck(operator, (numbers[[0, 1, 2, 5]], *live_parts(), None, 0.7, -100))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_graph_decides_and_trains(counted, backend):
    def step(hidden, weight, bias, A, B, targets, M):
        z = LinearLogits(hidden, weight, bias, scale=0.9, softcap=4.0, lora=(A, B, 0.5))
        seen = rskernels.verify(z, 0.02, M, targets=targets, seed=3, temperature=M)
        return torch.where(seen.mask, seen.log_prob, 0.0).sum()

    fast, counter = counted(step, backend=backend, dynamic=True)
    for rows, M in ((7, 1.0), (20, 1.5), (12, 1.7)):
        results = []
        for call in (fast, step):
            hidden, weight, bias, _, _, A, B, _, targets = live_parts(rows)
            value = call(hidden, weight, bias, A, B, targets, M)
            value.backward()
            results.append((value, *(part.grad for part in (hidden, weight, bias, A, B))))
        assert results[1][0] < 0.0
        for got, want in zip(*results, strict=True):
            torch.testing.assert_close(got, want)
    assert counter.frame_count == 1


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("is_one_pass", [False, True])
def test_checkpointed(is_one_pass, use_reentrant):
    """What is made again is the same, also where a seed is drawn for it."""

    def loss_of(hidden, weight, bias, A, B, targets):
        hidden = torch.tanh(hidden)
        z = LinearLogits(hidden, weight, bias, scale=0.9, softcap=4.0, lora=(A, B, 0.5))
        if not is_one_pass:
            return -rskernels.target_log_prob(z, targets).mean()
        seen = rskernels.verify(z, 0.02, targets=targets)
        return -torch.where(seen.mask, seen.log_prob, 0.0).mean()

    results = []
    for is_checkpointed in (False, True):
        hidden, weight, bias, _, _, A, B, _, targets = live_parts(50)
        live = hidden, weight, bias, A, B
        torch.manual_seed(4)
        if is_checkpointed:
            loss = checkpoint(loss_of, *live, targets, use_reentrant=use_reentrant)
        else:
            loss = loss_of(*live, targets)
        torch.manual_seed(5)
        loss.backward()
        results.append((loss.detach(), *(part.grad for part in live)))
    assert results[0][0] > 0.0
    assert same_bits(*results)
