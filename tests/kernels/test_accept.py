"""Law 1 with targets: every backend against the float64 reference."""

import math
import mmap

import pytest
import torch

import rskernels
from rskernels.law.decision import Law

from ..support.bits import same_bits
from ..support.cases import draw_case, layouts
from ..support.lawful import assert_lawful

# Both sides of a vector of 16, of the step of 64, of the CPU's parts up to 512 and 2048, of the
# GPU's chunk of 4096, and two blocks and more.
WIDTHS = [
    *(1, 2, 10, 15, 16, 17, 63, 64, 65),
    *(512, 513, 2048, 2049, 4095, 4096, 4097, 8192, 8193, 32000),
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", WIDTHS)
def test_every_width_and_dtype(kernel, V, dtype):
    logits, targets, log_p = draw_case((kernel.rows(33, slow=2), V), dtype, seed=V)
    got = assert_lawful(kernel, logits, targets, log_p, 0.4, seed=V, log_space=True)
    assert got.counts[2:].tolist() == [0, 0]


@pytest.mark.parametrize("model_is_target", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_decisions_are_mixed_and_lawful(kernel, dtype, model_is_target):
    N = kernel.rows(10_000, slow=24)
    logits, targets, log_p = draw_case((N, 10), dtype)
    law = {"log_space": True, "model_is_target": model_is_target}
    accepted, violations, *_ = assert_lawful(kernel, logits, targets, log_p, 0.2, **law).counts
    assert 0.4 * N < accepted < N
    assert violations > 0.2 * N


# A unit of the CPU kernel is 246 rows of 10 classes.
@pytest.mark.parametrize("N", [0, 1, 2, 33, 245, 246, 247, 493])
def test_every_number_of_rows(backend, N):
    if backend.is_slow and N > 33:
        pytest.skip("interpreted Triton takes milliseconds a row")
    logits, targets, log_p = draw_case((N, 10))
    got = assert_lawful(backend, logits, targets, log_p, 0.0, seed=1, log_space=True)
    assert got.mask.shape == (N,)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (2, 0, 4), (1, 1), (2, 1, 3)])
@pytest.mark.parametrize("layout", ["sliced", "stepped", "transposed"])
def test_leading_shapes_and_layouts(kernel, shape, layout):
    logits, targets, log_p = draw_case((*shape, 37))
    law = {"seed": 3, "row_offset": 11, "log_space": True}
    want = assert_lawful(kernel, logits, targets, log_p, 0.1, **law)
    assert want.mask.shape == shape
    view = getattr(layouts(logits), layout)
    assert same_bits(kernel.decide(view, targets, log_p, 0.1, **law), want)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t[:, :-1],
        lambda t: t.transpose(0, 1),
        lambda t: t[:1].expand(3, -1, -1),
        lambda t: t[:, :1].expand(-1, 2, -1),
        lambda t: t[..., :1].expand(-1, -1, 6),
        lambda t: t[::2, 1::2],
        lambda t: t[None].transpose(0, 2),
        lambda t: t.permute(2, 1, 0),
    ],
    ids=["next-token", "swapped", "one", "one-row", "one-class", "steps", "size-1", "reversed"],
)
@pytest.mark.parametrize("V", [19, 4100])
def test_views_are_read_where_they_lie(kernel, V, view):
    logits = view(draw_case((3, 4, 19))[0] if V == 19 else draw_case((2, 2, V))[0])
    if logits.shape[:-1].numel() > 100 and kernel.is_slow:
        pytest.skip("interpreted Triton takes milliseconds a row")
    targets = torch.arange(logits.shape[:-1].numel()).view(logits.shape[:-1]) % logits.shape[-1]
    got = assert_lawful(kernel, logits, targets, 0.1, 1.0, seed=4)
    assert same_bits(kernel.decide(logits.contiguous(), targets, 0.1, 1.0, seed=4), got)


def test_targets_densities_and_M_of_any_layout(kernel):
    logits, targets, log_p = draw_case((3, 4, 9))
    spaced = torch.full((4, 3, 2), 8)
    spaced[..., 1] = targets.T
    columns = torch.stack([log_p, log_p], -1)[..., 0]
    log_M = torch.linspace(-1, 1, 4).expand(3, 4)
    want = assert_lawful(kernel, logits, targets, log_p, log_M.contiguous(), log_space=True)
    got = assert_lawful(kernel, logits, spaced[..., 1].T, columns, log_M, log_space=True)
    assert torch.equal(got.mask, want.mask)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (2, 3)])
def test_densities_broadcast_and_keep_their_precision(kernel, shape, dtype):
    logits, targets, _ = draw_case((2, 3, 9))
    generator = torch.Generator().manual_seed(1)
    density = torch.rand(shape, generator=generator).to(dtype)
    M = (0.5 + torch.rand(shape, generator=generator)).to(dtype)
    assert_lawful(kernel, logits, targets, density, M, seed=2)
    assert_lawful(kernel, logits, targets, density, 1.5, seed=2, model_is_target=True)


def test_float64_densities_are_not_rounded(kernel):
    # As float32 both would be 0.
    tiny = torch.tensor([1e-60, 3e-60], dtype=torch.float64)
    logits, targets = torch.zeros(2, 4), torch.tensor([0, 3])
    got = assert_lawful(kernel, logits, targets, tiny, 8 * tiny[:1])
    assert got.log_ratio.tolist() == pytest.approx([math.log(4e-60), math.log(12e-60)], rel=1e-6)
    assert got.excess[1].item() == pytest.approx(2.0, rel=1e-5)


def test_a_layout_of_three_strides_is_copied_and_kept(kernel):
    # Freed too early, the copy would be overwritten by the memory of the results.
    for V in (1, 2, 33):
        logits, targets, log_p = draw_case((4, 3, 2, V))
        spread = logits.permute(2, 1, 0, 3).contiguous().permute(2, 1, 0, 3)
        law = {"seed": 3, "log_space": True}
        want = assert_lawful(kernel, logits, targets, log_p, **law)
        assert same_bits(kernel.decide(spread, targets, log_p, **law), want)
        want = kernel.decide(logits, None, 0.0, **law)
        assert same_bits(kernel.decide(spread, None, 0.0, **law), want)
        upstream = torch.ones(4, 3, 2)
        want = kernel.gradient(upstream, logits, targets)
        assert same_bits(kernel.gradient(upstream, spread, targets), want)


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63), torch.tensor([77])])
@pytest.mark.parametrize("row_offset", [0, 2**31 - 3, 2**32 - 3, 2**63 - 9])
def test_seeds_and_row_ids(kernel, seed, row_offset):
    logits, targets, log_p = draw_case((6, 5))
    law = {"seed": seed, "row_offset": row_offset, "log_space": True}
    assert_lawful(kernel, logits, targets, log_p, 0.0, **law)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_target_dtypes(kernel, dtype):
    logits, targets, log_p = draw_case((5, 4097))
    targets[0], targets[1], targets[2] = 0, 4095, 4096
    want = assert_lawful(kernel, logits, targets, log_p, log_space=True)
    assert same_bits(kernel.decide(logits, targets.to(dtype), log_p, log_space=True), want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["large", "ascending", "late", "sparse", "flat", "spike"])
def test_awkward_rows(kernel, kind, dtype):
    logits, targets, _ = draw_case((6, 8193), torch.float64, spread=1.0)
    if kind == "large":
        logits = 1e4 * torch.sin(1e3 * logits)
    if kind == "ascending":
        # The maximum comes last: the reference of the exponentials is raised again and again.
        logits = torch.linspace(-300, 300, 8193).expand(6, -1).clone()
        targets = torch.tensor([0, 4095, 4096, 8190, 8191, 8192])
    if kind == "late":
        # The first block holds nothing.
        logits[:, :4096] = -math.inf
        targets = targets.clamp(min=4096)
    if kind == "sparse":
        logits[torch.rand(logits.shape) < 0.99] = -math.inf
        logits[torch.arange(6), targets] = 0.5
    if kind == "flat":
        logits = torch.full_like(logits, -7000.0)
    if kind == "spike":
        logits[torch.arange(6), targets] = 5e3
    some = kernel.rows(6, slow=2)
    logits, targets = logits[-some:].to(dtype), targets[-some:]
    for model_is_target in (False, True):
        law = {"seed": 8, "model_is_target": model_is_target}
        got = assert_lawful(kernel, logits, targets, 1e-4, 1.0, **law)
        assert got.counts[2:].tolist() == [0, 0]
        assert got.log_prob.isfinite().all()


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 3.0, 20.0, 1e-30, 1e30])
@pytest.mark.parametrize("dtype", DTYPES)
def test_temperatures(kernel, dtype, temperature):
    case = draw_case((kernel.rows(6, slow=2), 4100), dtype, temperature=max(temperature, 0.05))
    assert_lawful(kernel, *case, 0.3, seed=9, temperature=temperature, log_space=True)


def test_log_prob_is_at_most_0_where_one_class_has_everything(kernel):
    generator = torch.Generator().manual_seed(3)
    logits = torch.full((6, 4097), -1e4)
    targets = torch.tensor([0, 15, 16, 63, 4095, 4096])
    logits[torch.arange(6), targets] = 1e4 * torch.rand(6, generator=generator)
    got = assert_lawful(kernel, logits, targets, 1.0)
    assert (got.log_prob <= 0.0).all()
    assert (got.log_prob >= -(2.0**-23)).all()
    assert got.mask.all()


@pytest.mark.parametrize("name", ["accept", "verify"])
def test_public_functions_are_the_kernels(name):
    from rskernels.kernels import cpu

    logits, targets, log_p = draw_case((4, 3, 50))
    law = {"temperature": 0.8, "log_space": True, "seed": -5, "row_offset": 17, "ignore_index": 7}
    decide = getattr(rskernels, name)
    mask = getattr(rskernels, f"{name}_mask")
    got = decide(logits, log_p, 0.3, targets=targets, **law)
    want = cpu.decide(logits, targets, Law(log_p, 0.3, -5, 17, 0.8, True, name == "verify", 7))
    assert same_bits(got, want)
    assert same_bits(mask(logits, log_p, 0.3, targets=targets, **law), want[0])
    # M=None is M = 1 in either space.
    law["log_space"] = False
    p = log_p.exp()
    assert same_bits(
        decide(logits, p, None, targets=targets, **law),
        decide(logits, p, 1, targets=targets, **law),
    )


@pytest.mark.parametrize("model_is_target", [False, True])
def test_reference_states_the_law(model_is_target):
    from rskernels.kernels import reference

    logits, targets = [[0.5, -1.0, 2.0], [3.0, 3.0, -4.0]] * 50, [2, 0] * 50
    density, M, T = 0.4, 1.7, 0.6
    mask, log_prob, log_ratio, counts, excess = reference.decide(
        torch.tensor(logits),
        torch.tensor(targets),
        Law(density, M, 12, 34, T, model_is_target=model_is_target),
    )
    u = rskernels.uniforms(100, seed=12, row_offset=34).tolist()
    r = []
    for n, (z, target) in enumerate(zip(logits, targets, strict=True)):
        q = math.exp(z[target] / T) / sum(math.exp(value / T) for value in z)
        p, q_hat = (q, density) if model_is_target else (density, q)
        r.append(p / (M * q_hat))
        assert log_prob[n].item() == pytest.approx(math.log(q))
        assert log_ratio[n].item() == pytest.approx(math.log(p / q_hat))
        assert mask[n] == (r[n] >= u[n])
    assert 0 < counts[0] == mask.sum() < 100
    assert counts[1:].tolist() == [sum(value > 1 for value in r), 0, 0]
    assert excess.tolist() == pytest.approx([sum(max(value - 1, 0) for value in r), sum(r)])


@pytest.mark.parametrize("strides", [(2**31 + 64, 1), (7, 2**30 + 64)])
def test_elements_beyond_32_bits(kernel, strides):
    if kernel.device.type == "cuda":
        pytest.skip("takes 17 GB of a device")
    # Only the pages that are touched take memory, and none is reserved.
    elements = strides[0] * 2 + strides[1] * 4 + 1
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000
    memory = mmap.mmap(-1, 4 * elements, flags=flags)
    near, targets, _ = draw_case((3, 5))
    far = torch.frombuffer(memory, dtype=torch.float32, count=elements).as_strided((3, 5), strides)
    far.copy_(near)
    for form in (targets, None):
        want = kernel.decide(near, form, 0.2, 1.0, seed=1)
        assert same_bits(kernel.decide(far, form, 0.2, 1.0, seed=1), want)
    want = kernel.log_prob(near, targets), kernel.gradient(torch.ones(3), near, targets)
    got = kernel.log_prob(far, targets), kernel.gradient(torch.ones(3), far, targets)
    assert same_bits(got, want)
