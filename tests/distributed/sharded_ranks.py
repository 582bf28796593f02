"""The ranks of test_sharded.py: ``sharded_ranks.py COUNT`` forks as many and runs each."""

import functools
import sys
import tempfile

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import rskernels
import rskernels.kernels.cpu  # before the fork: it takes longer than most checks
from tests.support.ranks import run_ranks

SHAPES = [(9, 5), (3, 7, 5), (1, 5), (2, 3, 5, 4), (0, 3)]
LAW = {"seed": 3, "row_offset": 2**40 + 11, "temperature": 0.7}


def meshes():
    """Return a mesh of one dimension, one of two, and placements of rows on each."""
    ranks = dist.get_world_size()
    line = init_device_mesh("cpu", (ranks,))
    square = init_device_mesh("cpu", (2, ranks // 2))
    for dims in range(1, 4):
        rows = [Shard(dim) for dim in range(dims)]
        for place in (*rows, Replicate()):
            yield dims, line, [place]
            for other in (*rows, Replicate()) if dims < 3 else ():
                yield dims, square, [place, other]


def distribute(value, mesh, placements):
    """Return the DTensor of a tensor that every rank holds; no collective."""
    return distribute_tensor(value, mesh, placements, src_data_rank=None)


def draw(shape, seed):
    """Return logits, targets and densities with an invalid and an ignored row."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator)
    targets = torch.randint(shape[-1], shape[:-1], generator=generator)
    density = torch.rand(shape[:-1], generator=generator)
    if logits.numel():
        logits.view(-1, shape[-1])[0, 0] = torch.nan
        targets.view(-1)[-1] = -100
    return logits, targets, density


def assert_whole(got, want, placements):
    """Raise unless a DTensor lies as said and this rank's part has a plain tensor's bits."""
    assert list(got.placements) == placements
    assert (got.shape, got.dtype, got.stride()) == (want.shape, want.dtype, want.stride())
    part = distribute(want, got.device_mesh, placements).to_local()
    torch.testing.assert_close(got.to_local(), part, rtol=0, atol=0, equal_nan=True)


def check_decisions(mesh, placements, logits, targets, density):
    def place(value, how=placements):
        return distribute(value, mesh, how)

    copied = [Replicate()] * mesh.ndim
    rows, first = place(logits), density[..., :1]
    # Cut as the rows are, replicated, broadcast, and one number for all.
    given = [
        (place(targets), place(density), density),
        (place(targets, copied), place(density, copied), density),
        (place(targets), place(first, copied), first),
        (place(targets), torch.tensor([0.3]), torch.tensor([0.3])),
    ]
    for index, p_hat, plain in given[: 4 if logits.numel() else 2]:
        M = place(torch.tensor(1.5), copied)
        got = rskernels.accept(rows, p_hat, M, targets=index, **LAW)
        want = rskernels.accept(logits, plain, 1.5, targets=targets, **LAW)
        for part, whole in zip(got[:3], want[:3], strict=True):
            assert_whole(part, whole, placements)
        assert_whole(got.counts, want.counts, copied)
        assert list(got.excess.placements) == copied
        torch.testing.assert_close(got.excess.to_local(), want.excess)
        got = rskernels.verify_mask(rows, p_hat, M, targets=index, **LAW)
        want = rskernels.verify_mask(logits, plain, 1.5, targets=targets, **LAW)
        assert_whole(got, want, placements)
    check_temperatures(mesh, placements, logits, targets, density)
    columns = torch.rand(logits.shape[-1], generator=torch.Generator().manual_seed(5))
    got = rskernels.accept_mask(rows, place(columns, copied), 1.5, **LAW)
    assert_whole(got, rskernels.accept_mask(logits, columns, 1.5, **LAW), placements)
    got = rskernels.bernoulli_mask(rows, place(logits.exp()), seed=torch.tensor([3]), row_offset=7)
    want = rskernels.bernoulli_mask(logits, logits.exp(), seed=3, row_offset=7)
    assert_whole(got, want, placements)
    ids = torch.arange(logits.numel()).view(logits.shape).flip(0)
    for placed in (place(ids), place(ids, copied)):
        got = rskernels.bernoulli_mask(rows, 1.5, seed=3, ids=placed)
        assert_whole(got, rskernels.bernoulli_mask(logits, 1.5, seed=3, ids=ids), placements)
    given = (density, 1.5 - density)
    law = {"targets": place(targets), "ids": place(-targets), "seed": 3}
    got = rskernels.verify(rows, *map(place, given), **law)
    want = rskernels.verify(logits, *given, targets=targets, ids=-targets, seed=3)
    assert_whole(got.mask, want.mask, placements)
    assert_whole(got.counts, want.counts, copied)
    got = rskernels.bernoulli(rows, place(logits.exp()), seed=torch.tensor([3]), row_offset=7)
    want = rskernels.bernoulli(logits, logits.exp(), seed=3, row_offset=7)
    for part, whole in zip(got[:3], want[:3], strict=True):
        assert_whole(part, whole, placements)
    assert_whole(got.counts, want.counts, copied)
    torch.testing.assert_close(got.excess.to_local(), want.excess)


def check_temperatures(mesh, placements, logits, targets, density):
    """Compare rows at temperatures of their own: cut as they are, replicated, and broadcast."""
    copied, rows = [Replicate()] * mesh.ndim, distribute(logits, mesh, placements)
    index = distribute(targets, mesh, placements)
    each = 0.2 + 2 * density
    each.view(-1)[1:2] = torch.nan
    for plain, how in ((each, placements), (each, copied), (each[..., :1], copied)):
        if not plain.numel():
            continue
        temperature, law = distribute(plain, mesh, how), {"seed": 3, "row_offset": 5}
        for form, cut in ((targets, index), (None, None)):
            got = rskernels.accept(rows, 0.2, 1.5, targets=cut, temperature=temperature, **law)
            want = rskernels.accept(logits, 0.2, 1.5, targets=form, temperature=plain, **law)
            for part, whole in zip(got[:3], want[:3], strict=True):
                assert_whole(part, whole, placements)
            assert_whole(got.counts, want.counts, copied)
        got = rskernels.target_log_prob(rows, index, temperature=temperature)
        want = rskernels.target_log_prob(logits, targets, temperature=plain)
        assert_whole(got, want, placements)


def check_gradient(mesh, placements, logits, targets, density):
    leaf = distribute(logits, mesh, placements).requires_grad_()
    plain = logits.clone().requires_grad_()
    index, weights = (distribute(part, mesh, placements) for part in (targets, density))
    got, want = rskernels.target_log_prob(leaf, index), rskernels.target_log_prob(plain, targets)
    assert_whole(got.detach(), want.detach(), placements)
    (got * weights).sum().backward()
    (want * density).sum().backward()
    assert_whole(leaf.grad, plain.grad, placements)


def check_decided_gradient(mesh, placements, logits, targets, density):
    """Compare a pass that decides and carries the gradient, of rows with an upstream of 0 too."""
    leaf = distribute(logits, mesh, placements).requires_grad_()
    plain = logits.clone().requires_grad_()
    index, weights = (distribute(part, mesh, placements) for part in (targets, density))
    law = {"seed": 3, "row_offset": 5}
    got = rskernels.accept(leaf, 0.2, 1.5, targets=index, **law)
    want = rskernels.accept(plain, 0.2, 1.5, targets=targets, **law)
    for part, whole in zip(got[:3], want[:3], strict=True):
        assert_whole(part.detach(), whole.detach(), placements)
    assert torch.equal(got.counts.to_local(), want.counts)
    assert [part.requires_grad for part in got] == [False, True, False, False, False]
    (got.log_prob.nan_to_num() * weights).sum().backward()
    (want.log_prob.nan_to_num() * density).sum().backward()
    assert_whole(leaf.grad, plain.grad, placements)


def check_mean(mesh, placements, shape):
    """Compare value and gradient on every rank, of which some may have no row."""
    generator = torch.Generator().manual_seed(1)
    loss, weights = torch.rand((2, *shape), generator=generator)
    mask = torch.rand(shape, generator=generator) < 0.5
    if loss.numel():
        loss.view(-1)[0], weights.view(-1)[0], mask.view(-1)[0] = torch.inf, torch.nan, False
    for kept, scaled in ((mask, None), (mask, weights * 2e38), (torch.zeros_like(mask), None)):
        seen = []
        for place in (lambda x: distribute(x, mesh, placements), torch.clone):
            leaf = place(loss).requires_grad_()
            weighted = () if scaled is None else (place(scaled),)
            mean = rskernels.accepted_mean(leaf, place(kept), *weighted)
            (3 * mean).backward()
            seen.append((mean.detach(), leaf.grad))
        (got, gradient), (want, wanted) = seen
        assert list(got.placements) == [Replicate()] * mesh.ndim
        torch.testing.assert_close(got.to_local(), want)
        torch.testing.assert_close(gradient.full_tensor(), wanted)


def check_refused_means(mesh):
    loss, mask = torch.rand(6), torch.ones(6).bool()
    place = functools.partial(distribute, mesh=mesh, placements=[Shard(0)])
    for arguments, message in (
        ((place(loss), mask), "mask is a plain tensor, loss a DTensor; make both"),
        ((loss, place(mask)), "loss is a plain tensor, mask a DTensor; make both"),
        ((place(loss), place(mask), loss), "weights is a plain tensor, loss a DTensor"),
    ):
        with pytest.raises(TypeError, match=message):
            rskernels.accepted_mean(*arguments)
    other = distribute(mask, init_device_mesh("cpu", (mesh.size(), 1)), [Shard(0), Replicate()])
    with pytest.raises(ValueError, match="mask and loss are DTensors of different meshes"):
        rskernels.accepted_mean(place(loss), other)
    with pytest.raises(NotImplementedError, match="transforms of a DTensor"):
        torch.func.grad(rskernels.accepted_mean)(place(loss), place(mask))
    half = DTensor.from_local(loss, mesh, [Partial()])
    mean = rskernels.accepted_mean(half, distribute(mask, mesh, [Replicate()]))
    torch.testing.assert_close(mean.full_tensor(), half.full_tensor().mean())


def check_refusals(mesh):
    logits, targets, density = draw((4, 6, 5), 0)
    copied, by_rows, by_next = [Replicate()], [Shard(0)], [Shard(1)]

    def place(value, how=by_rows):
        return distribute(value, mesh, how)

    def refuse(error, message, rows=None, p_hat=0.2, **law):
        with pytest.raises(error, match=message):
            rskernels.accept_mask(place(logits) if rows is None else rows, p_hat, 1.5, **law)

    remedy = r"redistribute\(placements=\[Shard\(0\)\]\)"
    by_class = place(logits, [Shard(2)])
    half = DTensor.from_local(logits, mesh, [Partial()])
    refuse(ValueError, f"sharded over its classes.*{remedy}", by_class, seed=0)
    refuse(ValueError, f"must be sharded by rows or replicated.*{remedy}", half, seed=0)
    with pytest.raises(ValueError, match="over its classes"):
        rskernels.target_log_prob(by_class, place(targets))
    with pytest.raises(ValueError, match=r"log_ratio must be.*log_ratio\.redistribute"):
        rskernels.bernoulli_mask(half, seed=0)
    # Plain tensors could hold all rows or this rank's.
    refuse(TypeError, "targets is a plain tensor", targets=targets, seed=0)
    refuse(TypeError, "p_hat is a plain tensor", p_hat=density, targets=place(targets), seed=0)
    refuse(TypeError, "targets is a DTensor, logits is not", logits, targets=place(targets), seed=0)
    with pytest.raises(TypeError, match="targets is a DTensor, logits is not"):
        rskernels.target_log_prob(logits, place(targets))
    refuse(TypeError, "temperature is a plain tensor", p_hat=0.2, temperature=density, seed=0)
    refuse(
        ValueError, r"temperature must be placed \[Shard\(dim=0\)\], as logits, or replicated",
        temperature=place(density, by_next), seed=0,
    )  # fmt: skip
    one = place(logits[:1, 0])
    refuse(TypeError, "targets is a plain tensor", one, targets=targets[:1, 0], seed=0)
    refuse(
        ValueError, r"p_hat must be placed \[Shard\(dim=0\)\], as logits, or replicated",
        p_hat=place(density, by_next), targets=place(targets), seed=0,
    )  # fmt: skip
    ranks = mesh.size()
    seeds = DTensor.from_local(torch.tensor([3]), mesh, by_rows, shape=(1,), stride=(1,))
    refuse(ValueError, "seed must be placed replicated", targets=place(targets), seed=seeds)
    other = init_device_mesh("cpu", (ranks, 1))
    elsewhere = distribute(targets, other, [Shard(0), Replicate()])
    refuse(ValueError, "of different meshes", targets=elsewhere, seed=0)
    # Replicas with seeds of their own would part; rows alone may each have one.
    refuse(ValueError, "give the same seed", place(logits, copied))
    assert rskernels.accept_mask(place(logits), 0.2, 1.5).shape == logits.shape
    wrong = DTensor.from_local(logits[: 1 + dist.get_rank()], mesh, by_rows, run_check=False)
    if dist.get_rank() == 0:
        assert rskernels.accept_mask(wrong, 0.2, 1.5, seed=0).shape == (ranks, 6, 5)
    whole = {"shape": (2 * ranks, 6, 5), "stride": (30, 5, 1)}
    wrong = DTensor.from_local(logits[:1], mesh, by_rows, run_check=False, **whole)
    refuse(ValueError, r"should hold \[2, 6, 5\], but it holds \[1, 6, 5\]", wrong, seed=0)
    with pytest.raises(TypeError, match="must hold all its values on every rank"):
        rskernels.ColumnOrder(place(torch.arange(1), copied), 5)
    index = place(targets)
    with pytest.raises(NotImplementedError, match="transforms of a DTensor"):
        torch.func.grad(lambda x: rskernels.target_log_prob(x, index).sum())(place(logits))


def check_refused_estimates(mesh):
    """Raise unless what learns M says how ranks learn it together."""
    logits, targets, density = draw((4, 6, 5), 0)
    place = functools.partial(distribute, mesh=mesh, placements=[Shard(0)])
    envelope = rskernels.Envelope(groups=5, on_violation="control")
    groups, accepted = targets.clamp(min=0), density > 0.5
    together = r"is a DTensor; give .* its to_local\(\): .* all_reduce"
    for name, arguments in (
        ("log_ratio", (place(density), place(groups))),
        ("log_ratio", (place(density), groups)),
        ("groups", (density, place(groups))),
        ("accepted", (density, groups, place(accepted))),
    ):
        with pytest.raises(TypeError, match=f"{name} {together}"):
            envelope.update(*arguments[:2], accepted=None if len(arguments) < 3 else arguments[2])
    with pytest.raises(TypeError, match=f"groups {together}"):
        envelope.log_M(place(groups))
    assert not envelope.seen.any()
    for name, arguments in (
        ("logits", (place(logits), 0.2)),
        ("targets", (logits, 0.2, place(targets))),
        ("p_hat", (logits, place(logits.exp()))),
    ):
        with pytest.raises(TypeError, match=f"{name} {together}"):
            rskernels.estimate_M(*arguments[:2], targets=[*arguments, None][2])


def check_compiled(mesh):
    """Compare on one rank, which needs no other for what has no totals."""

    def step(logits, targets, M):
        mask = rskernels.accept_mask(logits, 0.2, M, targets=targets, seed=3)
        return rskernels.target_log_prob(logits, targets), mask

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (6, 9):
        logits, targets, _ = draw((rows, 3, 5), rows)
        targets = distribute(targets, mesh, [Shard(0)])
        seen = []
        for call in (step, compiled):
            leaf = distribute(logits, mesh, [Shard(0)]).requires_grad_()
            log_prob, mask = call(leaf, targets, float(rows))
            log_prob.to_local().nansum().backward()
            seen.append((leaf.grad, log_prob.detach(), mask))
        for eager, traced in zip(*seen, strict=True):
            assert (eager.placements, eager.shape) == (traced.placements, traced.shape)
            torch.testing.assert_close(
                traced.to_local(), eager.to_local(), rtol=0, atol=0, equal_nan=True
            )


def main():
    for dims, mesh, placements in meshes():
        for shape in SHAPES:
            if len(shape) == dims + 1:
                case = draw(shape, dims)
                check_decisions(mesh, placements, *case)
                check_gradient(mesh, placements, *case)
                check_decided_gradient(mesh, placements, *case)
                check_mean(mesh, placements, shape[:-1])
    line = init_device_mesh("cpu", (dist.get_world_size(),))
    check_refusals(line)
    check_refused_means(line)
    check_refused_estimates(line)
    if dist.get_rank() == 1:
        check_compiled(line)
    dist.barrier()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not run_ranks(int(sys.argv[1]), f"{folder}/store", main))
