"""The ranks of test_vocabulary.py: ``vocabulary_ranks.py COUNT`` forks as many and runs each."""

import itertools
import sys
import tempfile

import pytest
import torch
import torch.distributed as dist

import rskernels
import rskernels.kernels.cpu  # before the fork: it takes longer than most checks
from rskernels import LinearLogits
from tests.support.ranks import run_ranks

V, D = 700, 24
OPTIONS = [
    {},
    {"scale": 0.5, "softcap": 3.0},
    {"bias": True, "lora": True},
]
LAW = {"seed": 5, "row_offset": 2**40 + 3}


def draw(shape, dtype, options):
    """Return the parts of all columns, targets and densities, with odd rows among them."""
    generator = torch.Generator().manual_seed(7)
    normal = lambda *size: torch.randn(size, generator=generator).to(dtype)  # noqa: E731
    hidden, weight = normal(*shape, D), normal(V, D)
    targets = torch.randint(V, shape, generator=generator)
    density = torch.rand(shape, generator=generator) / 50
    if targets.numel() > 3:
        hidden.view(-1, D)[0] = torch.nan
        targets.view(-1)[1] = -100
        density.view(-1)[2] = torch.nan
    parts = {"weight": weight, "bias": None, "lora": None}
    if options.get("bias"):
        parts["bias"] = torch.randn(V, generator=generator)
        parts["bias"][: V // 2] = -torch.inf  # a rank with nothing but masked columns
        parts["bias"][V // 2 :: 9] = -torch.inf
    if options.get("lora"):
        parts["lora"] = normal(3, D), normal(V, 3), 0.5
    return hidden, parts, targets, density


def cut(parts, begin, end):
    """Return a rank's part of what has V rows."""
    A, B, scale = parts["lora"] or (None, None, None)
    return {
        "weight": parts["weight"][begin:end],
        "bias": None if parts["bias"] is None else parts["bias"][begin:end],
        "lora": None if A is None else (A, B[begin:end], scale),
    }


def columns_of(rank, ranks):
    """Return a rank's columns: ranks have more or fewer."""
    edges = [0, *(V * (at + 1) // ranks - 3 * at for at in range(ranks - 1)), V]
    return edges[rank], edges[rank + 1]


def same_on_all_ranks(values):
    for value in values:
        bits = value.contiguous().view(torch.uint8) if value.numel() else value.to(torch.uint8)
        sizes = [torch.empty_like(bits) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, bits)
        assert all(torch.equal(bits, other) for other in sizes)


def check(dtype, options, shape, role):
    hidden, parts, targets, density = draw(shape, dtype, options)
    numbers = {name: options[name] for name in ("scale", "softcap") if name in options}
    begin, end = columns_of(dist.get_rank(), dist.get_world_size())
    alone = LinearLogits(hidden, **parts, **numbers)
    part = LinearLogits(
        hidden, **cut(parts, begin, end), **numbers, group=dist.group.WORLD, offset=begin
    )
    T = torch.linspace(0.5, 2.0, targets.numel()).view(shape)
    decide, mask = {
        "accept": (rskernels.accept, rskernels.accept_mask),
        "verify": (rskernels.verify, rskernels.verify_mask),
    }[role]
    for temperature in (1.0, T):
        law = {**LAW, "targets": targets, "temperature": temperature}
        want, got = decide(alone, density, 2.0, **law), decide(part, density, 2.0, **law)
        same_on_all_ranks(got)
        tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {
            "rtol": 1e-5, "atol": 3e-6
        }  # fmt: skip
        for name in ("log_prob", "log_ratio", "excess"):
            torch.testing.assert_close(
                getattr(got, name), getattr(want, name), equal_nan=True, **tolerance
            )
        assert torch.equal(got.counts, want.counts)
        assert torch.equal(got.mask, want.mask)
        assert torch.equal(mask(part, density, 2.0, **law), want.mask)
        softmax = {"temperature": temperature}
        torch.testing.assert_close(
            rskernels.target_log_prob(part, targets, **softmax),
            rskernels.target_log_prob(alone, targets, **softmax),
            equal_nan=True,
            **tolerance,
        )


def check_gradients(dtype, options):
    hidden, parts, targets, density = draw((21,), dtype, options)
    numbers = {name: options[name] for name in ("scale", "softcap") if name in options}
    begin, end = columns_of(dist.get_rank(), dist.get_world_size())
    upstream = torch.linspace(-1.0, 1.0, 21)
    upstream[[0, 1, 2]] = 0.0  # an invalid row, and one that is ignored
    law = {**LAW, "targets": targets, "temperature": 0.7}
    calls = (
        lambda z: rskernels.target_log_prob(z, targets, temperature=0.7),
        lambda z: rskernels.accept(z, density, 2.0, **law).log_prob,
        lambda z: rskernels.verify(z, density, 2.0, **law).log_prob,
    )
    for call in calls:
        gradients = []
        for own, more in (
            (parts, {}),
            (cut(parts, begin, end), {"group": dist.group.WORLD, "offset": begin}),
        ):
            A, B, scale = own["lora"] or (None, None, None)
            live = [hidden, own["weight"], own["bias"], A, B]
            live = [None if part is None else part.clone().requires_grad_() for part in live]
            lora = None if A is None else (*live[3:], scale)
            z = LinearLogits(*live[:3], lora=lora, **numbers, **more)
            log_prob = call(z)
            kept = upstream != 0.0
            (log_prob[kept] * upstream[kept].to(log_prob.dtype)).sum().backward()
            gradients.append([None if part is None else part.grad for part in live])
        want, got = gradients
        columns = slice(begin, end)
        want = [
            part if part is None or at in (0, 3) else part[columns] for at, part in enumerate(want)
        ]
        same_on_all_ranks(
            [part for at, part in enumerate(got) if at in (0, 3) and part is not None]
        )
        close = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2}[dtype]
        for a, b in zip(got, want, strict=True):
            if b is not None:
                torch.testing.assert_close(a, b, rtol=close, atol=close * float(b.abs().max()))
                assert b.abs().max() > 0


def check_seeds():
    """Ranks that would draw other seeds decide by the first one's."""
    hidden, parts, targets, density = draw((400,), torch.float32, {})
    rank = dist.get_rank()
    begin, end = columns_of(rank, dist.get_world_size())
    part = LinearLogits(hidden, **cut(parts, begin, end), group=dist.group.WORLD, offset=begin)
    torch.manual_seed(rank)
    masks = [rskernels.accept_mask(part, density, 2.0, targets=targets) for _ in range(2)]
    same_on_all_ranks(masks)
    assert not torch.equal(*masks)
    got = rskernels.accept_mask(part, density, 2.0, targets=targets, seed=rank + 9)
    alone = LinearLogits(hidden, **parts)
    assert torch.equal(got, rskernels.accept_mask(alone, density, 2.0, targets=targets, seed=9))


def check_errors():
    hidden, parts, targets, density = draw((5,), torch.float32, {})
    begin, end = columns_of(dist.get_rank(), dist.get_world_size())
    part = LinearLogits(hidden, **cut(parts, begin, end), group=dist.group.WORLD, offset=begin)
    targets[4] = V
    with pytest.raises(IndexError, match=f"got {V} in row 4"):
        rskernels.accept_mask(part, density, 2.0, targets=targets)
    order = rskernels.ColumnOrder(torch.arange(1), end - begin)
    with pytest.raises(ValueError, match="read to their end"):
        rskernels.verify_mask(part, density, 2.0, targets=targets, order=order)


def main():
    dtypes = torch.float32, torch.float64, torch.bfloat16
    shapes = (37,), (2, 3, 5), (0,)
    for dtype, options, shape in itertools.product(dtypes, OPTIONS, shapes):
        for role in ("accept", "verify"):
            check(dtype, options, shape, role)
    for dtype, options in itertools.product(dtypes, OPTIONS):
        check_gradients(dtype, options)
    check_seeds()
    check_errors()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not run_ranks(int(sys.argv[1]), f"{folder}/store", main))
