"""The ranks of test_vocabulary.py: ``vocabulary_ranks.py COUNT`` forks as many and runs each."""

import itertools
import sys
import tempfile

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import rskernels
import rskernels.kernels.cpu  # before the fork: it takes longer than most checks
from rskernels import LinearLogits
from tests.distributed.vocabulary_derivatives import (
    check_backward,
    check_collectives,
    check_transforms,
)
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
    alone = LinearLogits(hidden, **parts)
    torch.manual_seed(rank)
    for ids in (None, torch.arange(400).flip(0) - 7):
        law = {"targets": targets, "ids": ids}
        masks = [rskernels.accept_mask(part, density, 2.0, **law) for _ in range(2)]
        same_on_all_ranks(masks)
        assert not torch.equal(*masks)
        got = rskernels.accept(part, density, 2.0, **law, seed=rank + 9)
        want = rskernels.accept(alone, density, 2.0, **law, seed=9)
        assert torch.equal(got.mask, want.mask)
        assert torch.equal(got.counts, want.counts)


def check_errors():
    hidden, parts, targets, density = draw((5,), torch.float32, {})
    begin, end = columns_of(dist.get_rank(), dist.get_world_size())
    part = LinearLogits(hidden, **cut(parts, begin, end), group=dist.group.WORLD, offset=begin)
    targets[4] = V
    with pytest.raises(IndexError, match=f"got {V} in row 4"):
        rskernels.accept_mask(part, density, 2.0, targets=targets)
    order = rskernels.ColumnOrder(torch.arange(1), end - begin)
    with pytest.raises(ValueError, match="read to their end; leave it out"):
        rskernels.verify_mask(part, density, 2.0, targets=targets, order=order)
    for call in (
        lambda: rskernels.accept_mask(part, density, 2.0, targets=targets),
        lambda: rskernels.verify(part, density, 2.0, targets=targets).log_prob,
        lambda: rskernels.target_log_prob(part, targets),
    ):
        if dist.get_rank() > 0:
            continue  # one tells, without a collective: a compiler takes seconds to import
        with pytest.raises(Exception, match=r"cannot trace .*LinearLogits with a group; call it"):
            torch.compile(call, fullgraph=True, backend="eager")()
    # Ranks that have columns in common, or other targets, do not agree by chance.
    targets[4] = 0
    twice = LinearLogits(hidden, parts["weight"], group=dist.group.WORLD, offset=0)
    with pytest.raises(IndexError, match=r"columns of one rank .* the same on every rank"):
        rskernels.target_log_prob(twice, targets)


def check_derivatives():
    hidden, parts, targets, density = draw((5,), torch.float32, {"lora": True})
    begin, end = columns_of(dist.get_rank(), dist.get_world_size())
    own = cut(parts, begin, end)
    check_backward(hidden, own["weight"], targets, begin)
    check_transforms(hidden, own["weight"], targets, density, begin)
    check_collectives(hidden, own, targets, begin)


def place(value, mesh, how):
    """Return the DTensor of a tensor that every rank holds; no collective."""
    return distribute_tensor(value, mesh, how, src_data_rank=None)


def check_dtensors(mesh, placements, columns):
    """Compare with one process what follows from a weight's placements, gradients too.

    Ranks may have fewer columns than others, or none.
    """
    hidden, parts, targets, density = draw((21,), torch.float32, {"lora": True})
    hidden[0], density[2] = 0.5, 0.01
    A, B, scale = parts["lora"]
    bias = torch.linspace(-1.0, 1.0, columns)
    whole = [hidden, parts["weight"][:columns], bias, A, B[:columns]]
    targets[targets >= 0] %= columns
    law = {**LAW, "targets": targets, "temperature": 0.7}
    for is_plain in (False, True):  # hidden and A
        copied = [Replicate()] * mesh.ndim
        leaves, seen = [], []
        for is_cut in (False, True):
            live = [part.clone() for part in whole]
            for at, part in enumerate(live):
                if is_cut and not (is_plain and at in (0, 3)):
                    live[at] = place(part, mesh, copied if at in (0, 3) else placements)
            live = [part.detach().requires_grad_() for part in live]
            with torch.no_grad():
                z = LinearLogits(*live[:3], lora=(*live[3:], scale), softcap=4.0)
            decided = rskernels.accept(z, density, 2.0, **law)
            assert torch.equal(rskernels.accept_mask(z, density, 2.0, **law), decided.mask)
            decided.log_prob[targets >= 0].sum().backward()
            leaves.append(live)
            seen.append(decided)
        want, got = seen
        same_on_all_ranks([part.detach() for part in got])
        assert torch.equal(got.mask, want.mask)
        assert torch.equal(got.counts, want.counts)
        torch.testing.assert_close(
            got.log_prob, want.log_prob, rtol=1e-5, atol=3e-6, equal_nan=True
        )
        for want, got in zip(*leaves, strict=True):
            gradient = got.grad
            if isinstance(got, DTensor):
                assert gradient.placements == got.placements
                gradient = gradient.full_tensor()
            largest = float(want.grad.abs().max())
            # A vocabulary of one column has no gradient.
            most = 2e-5 * largest if columns > 1 else 1e-12
            torch.testing.assert_close(gradient, want.grad, rtol=2e-5, atol=most)
            assert (largest > 0) == (columns > 1)


def check_placements():
    ranks = dist.get_world_size()
    line = init_device_mesh("cpu", (ranks,))
    square = init_device_mesh("cpu", (2, ranks // 2))
    for columns in (V, ranks + 1, 1):
        check_dtensors(line, [Shard(0)], columns)
    check_dtensors(line, [Replicate()], V)
    check_dtensors(square, [Replicate(), Shard(0)], 101)
    check_dtensors(square, [Shard(0), Replicate()], 101)
    hidden, parts, targets, density = draw((5,), torch.float32, {"bias": True, "lora": True})
    weight, bias, (A, B, _) = parts.values()
    rows, copied = [Shard(0)], [Replicate()]
    cut = place(weight, line, rows)
    z = LinearLogits(hidden, cut)
    assert (z.group, z.offset) == (line.get_group(0), dist.get_rank() * -(-V // ranks))
    assert z.shape == (5, len(cut.to_local()))

    def refuse(error, message, *given, **options):
        with pytest.raises(error, match=message):
            LinearLogits(*given, **options)

    by_rows = r"over its rows, Shard\(0\), on at most one dimension of its mesh.*redistribute"
    refuse(ValueError, by_rows, hidden, place(weight, line, [Shard(1)]))
    refuse(ValueError, by_rows, hidden, DTensor.from_local(weight, line, [Partial()]))
    if ranks == 4:
        refuse(ValueError, by_rows, hidden, place(weight, square, [Shard(0)] * 2))
    refuse(TypeError, "bias is a plain tensor, weight is a DTensor", hidden, cut, bias)
    refuse(ValueError, "bias must be placed as weight is", hidden, cut, place(bias, line, copied))
    refuse(TypeError, "bias is a DTensor, weight is not", hidden, weight, place(bias, line, rows))
    lora = place(A, line, rows), place(B, line, rows), 1.0
    refuse(ValueError, r"A must be \[Replicate\(\)\], got", hidden, cut, lora=lora)
    refuse(TypeError, "B is a plain tensor", hidden, cut, lora=(A, B, 1.0))
    own = "hidden must be replicated.* with a row_offset for each rank"
    refuse(ValueError, own, place(hidden, line, rows), cut)
    refuse(ValueError, own, place(hidden, line, rows), weight)
    refuse(ValueError, "whose mesh says", hidden, cut, group=dist.group.WORLD)
    other = init_device_mesh("cpu", (ranks, 1))
    refuse(ValueError, "different meshes", hidden, cut, place(bias, other, [Shard(0)] * 2))
    wrong = DTensor.from_local(
        weight[:1], line, rows, run_check=False, shape=weight.shape, stride=weight.stride()
    )
    refuse(ValueError, "this rank should hold", hidden, wrong)
    for index, p_hat, name in (
        (place(targets, line, rows), density, "targets"),
        (targets, place(density, line, rows), "p_hat"),
    ):
        with pytest.raises(TypeError, match=f"{name} is a DTensor; beside LinearLogits give"):
            rskernels.accept_mask(z, p_hat, 2.0, targets=index)


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
    check_derivatives()
    check_placements()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not run_ranks(int(sys.argv[1]), f"{folder}/store", main))
