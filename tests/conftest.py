"""Fixtures of the whole suite: backends behind one call, poisoned memory, fresh processes."""

import functools
import hashlib
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

if not torch.cuda.is_available():
    # Triton reads this when its kernels are defined; they then run in NumPy on CPU tensors.
    os.environ["TRITON_INTERPRET"] = "1"

PACKAGE = Path(importlib.util.find_spec("rskernels").origin).parent


def _sources_digest():
    sources = sorted(path for room in ("law", "kernels") for path in (PACKAGE / room).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


# Numba does not notice that a file which a cached kernel imports was edited.
CACHE = Path(__file__).parents[1] / "build" / "numba" / _sources_digest()
os.environ.setdefault("NUMBA_CACHE_DIR", str(CACHE))

from rskernels import Acceptance  # noqa: E402
from rskernels.kernels import reference  # noqa: E402
from rskernels.law.decision import Law  # noqa: E402
from rskernels.law.philox import philox4x32, row_uniforms  # noqa: E402


def pytest_configure(config):
    # NumPy, which then runs the Triton kernels, tells of every infinite ratio and empty row.
    config.addinivalue_line("filterwarnings", "ignore::RuntimeWarning:triton")


def _poisoned(make):
    @functools.wraps(make)
    def made(*args, **kwargs):
        fresh = make(*args, **kwargs)
        if fresh.is_meta or fresh.layout != torch.strided or fresh.is_complex():
            return fresh
        with torch.no_grad():
            if fresh.is_floating_point():
                fresh.fill_(float("nan"))
            elif fresh.dtype == torch.bool:
                fresh.fill_(True)
            else:
                fresh.fill_(torch.iinfo(fresh.dtype).max)
        return fresh

    return made


@pytest.fixture(autouse=True, scope="session")
def poisoned_memory():
    """Fill fresh memory, so that an element which no kernel wrote is seen."""
    # torch.device as a context knows the functions that it found when first used.
    with torch.device("meta"):
        torch.empty(0)
    with pytest.MonkeyPatch.context() as patch:
        for owner, names in (
            (torch, ("empty", "empty_like", "empty_strided")),
            (torch.Tensor, ("new_empty", "new_empty_strided")),
        ):
            for name in names:
                patch.setattr(owner, name, _poisoned(getattr(owner, name)))
        yield


@pytest.fixture
def threads():
    """Set torch's thread count for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def python():
    """Run code in a fresh interpreter and return what it printed."""

    def run(code, timeout=120, **environment):
        path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


class Backend:
    """A module of a package's ``kernels``, called with CPU tensors and answering with them."""

    def __init__(self, name, package="rskernels"):
        self.name = name
        self.kernels = importlib.import_module(f"{package}.kernels.{name}")
        on_device = name == "gpu" and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_device else "cpu")
        # Interpreted Triton takes milliseconds a program.
        self.is_slow = name == "gpu" and not on_device

    def rows(self, wanted, slow=4):
        return slow if self.is_slow else wanted

    def place(self, value):
        """Return a tensor on the backend's device with the strides it has."""
        if not isinstance(value, torch.Tensor) or self.device.type == "cpu":
            return value
        length = value.untyped_storage().nbytes() // value.element_size()
        whole = value.as_strided((length,), (1,), 0).to(self.device)
        return whole.as_strided(value.shape, value.stride(), value.storage_offset())

    def decide(self, *args, **law):
        results = self.kernels.decide(*self._law(*args, **law))
        return Acceptance(*(result.cpu() for result in results))

    def mask(self, *args, is_lazy=False, order=None, **law):
        return self.kernels.mask(*self._law(*args, **law), is_lazy, self.place(order)).cpu()

    def bernoulli(self, log_ratio, M=1.0, *, seed=0, row_offset=0, stream=0, log_space=False):
        log_ratio, M, seed = (self.place(value) for value in (log_ratio, M, seed))
        return self.kernels.bernoulli(log_ratio, M, seed, row_offset, stream, log_space).cpu()

    def log_prob(self, logits, targets, temperature=1.0, ignore_index=-100):
        result = self._totals(logits, targets, temperature, ignore_index)
        return (result if self.name == "reference" else result[0]).cpu()

    def gradient(self, upstream, logits, targets, temperature=1.0, ignore_index=-100):
        if self.name == "reference":
            leaf = logits.double().detach().requires_grad_()
            log_prob = reference.target_log_prob(leaf, targets, temperature, ignore_index)
            return torch.autograd.grad(log_prob, leaf, upstream.double())[0]
        _, totals = self._totals(logits, targets, temperature, ignore_index)
        upstream, logits, targets = (self.place(t) for t in (upstream, logits, targets))
        return self.kernels.target_log_prob_backward(
            upstream, logits, targets, totals, temperature, ignore_index
        ).cpu()

    def philox(self, counter, key):
        if self.name == "reference":
            return philox4x32(counter, key)
        return self.kernels.philox(self.place(counter), self.place(key)).cpu()

    def _law(self, logits, targets, density, M=1.0, *, seed=0, **law):
        logits, targets, density, M, seed = map(self.place, (logits, targets, density, M, seed))
        return logits, targets, Law(density, M, seed, **law)

    def _totals(self, logits, targets, temperature, ignore_index):
        return self.kernels.target_log_prob(
            self.place(logits), self.place(targets), temperature, ignore_index
        )


_backend = functools.cache(Backend)


@pytest.fixture(params=["reference", "cpu", "gpu"])
def backend(request):
    """Every backend: for what holds of the definition too."""
    return _backend(request.param)


@pytest.fixture(params=["cpu", "gpu"])
def kernel(request):
    """The backends that are compared with the reference."""
    return _backend(request.param)


@pytest.fixture
def backend_of():
    """Return a backend by name, of this package or of a copy of it."""
    return _backend


@pytest.fixture
def cpu():
    return _backend("cpu")


@pytest.fixture
def gpu():
    return _backend("gpu")


def _draw_case(shape, dtype=torch.float32, *, seed=0, spread=3.0, dense=False, temperature=1.0):
    """Return logits [*shape], targets and log densities whose log ratios are of unit spread."""
    generator = torch.Generator().manual_seed(seed)
    draw = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    logits = (spread * draw(shape)).to(dtype)
    targets = None
    log_prob = reference.log_softmax(logits, temperature)[0]
    if not dense:
        targets = torch.randint(shape[-1], shape[:-1], generator=generator)
        log_prob = log_prob.gather(-1, targets[..., None])[..., 0]
    return logits, targets, log_prob + draw(log_prob.shape)


@pytest.fixture
def draw_case():
    return _draw_case


@pytest.fixture
def assert_lawful():
    """Compare a backend's decisions with the reference's, on the same uniforms."""
    return _assert_lawful


def _assert_lawful(backend, logits, targets, density, M=1.0, **law):
    got = backend.decide(logits, targets, density, M, **law)
    want = _backend("reference").decide(logits, targets, density, M, **law)
    is_wide = logits.dtype == torch.float64
    for name in ("log_prob", "log_ratio"):
        assert getattr(got, name).shape == getattr(want, name).shape
        if backend.name != "reference":
            assert getattr(got, name).dtype == (torch.float64 if is_wide else torch.float32)
    assert got.mask.dtype == torch.bool
    assert not (got.log_prob > 0).any()

    # A difference of logarithms is as exact as the larger of the two.
    finite = torch.where(want.log_prob.isfinite(), want.log_prob.abs(), 0.0)
    size = finite + torch.where(want.log_ratio.isfinite(), want.log_ratio.abs(), 0.0)
    slack = 1e-12 + 1e-14 * size if is_wide else 1e-5 + 5e-7 * size
    _assert_near(got.log_prob, want.log_prob, slack, "log_prob")
    _assert_near(got.log_ratio, want.log_ratio, slack, "log_ratio")

    # The dense form takes log u and log M in the precision of its logits.
    rounding = 1e-6 if targets is None and not is_wide else 1e-14
    log_M = reference.natural_log(M, law.get("log_space", False), want.log_prob)
    _assert_flips_explained(got, want, log_M, _log_uniforms(want, targets, law), rounding)
    mask = backend.mask(logits, targets, density, M, **law)
    assert torch.equal(mask, got.mask)

    valid = ~got.log_ratio.isnan()
    log_r = torch.where(valid, got.log_ratio.double() - log_M, -torch.inf)
    accepted, violations, invalid, ignored = got.counts.tolist()
    assert accepted == got.mask.sum()
    near = 0.0 if rounding < 1e-6 else rounding * (1 + log_M.abs())
    assert (log_r > near).sum() <= violations <= (log_r > -near).sum()
    assert (invalid, ignored) == tuple(want.counts[2:].tolist())
    excess = torch.stack([(log_r.exp() - 1).clamp(min=0).sum(), log_r.exp().sum()])
    if rounding < 1e-6 or not (log_r > 80).any():
        torch.testing.assert_close(got.excess, excess, rtol=1e-4, atol=1e-6)
    else:
        # Beyond float32, in which the dense form sums: only that it is huge is told.
        assert (got.excess > 1e30).all()
    return got


def _assert_near(got, want, slack, name):
    same = (got == want) | (got.isnan() & want.isnan())
    near = same | ((got.double() - want).abs() <= slack)
    assert near.all(), f"{name}: {got[~near][:5]} for {want[~near][:5]}"


def _log_uniforms(want, targets, law):
    rows = want.mask.numel() if targets is not None else want.mask.shape[:-1].numel()
    rows = law.get("row_offset", 0) + torch.arange(rows)
    columns = 0 if targets is not None else torch.arange(want.mask.shape[-1])
    rows = rows if targets is not None else rows[:, None]
    u = row_uniforms(rows, columns, law.get("seed", 0), 0)
    return u.double().log().view(want.mask.shape)


def _assert_flips_explained(got, want, log_M, log_u, rounding):
    """Where a decision differs, u lies between the two acceptance ratios."""
    flipped = got.mask != want.mask
    ratios = torch.stack([got.log_ratio.double() - log_M, want.log_ratio - log_M])
    room = rounding * (1 + log_u.abs() + log_M.abs())
    between = (ratios.amin(0) - room <= log_u) & (log_u <= ratios.amax(0) + room)
    assert between[flipped].all(), f"{int((flipped & ~between).sum())} unexplained decisions"


@pytest.fixture
def same_bits():
    """Say whether two tensors, or tuples of tensors, hold the same bits."""
    return _same_bits


def _same_bits(a, b):
    if isinstance(a, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        same = (a == b) & (a.signbit() == b.signbit())
        return bool((same | (a.isnan() & b.isnan())).all())
    return all(map(_same_bits, a, b))


@pytest.fixture
def layouts():
    """Return the same values in other layouts, by name."""

    def lay(values):
        wide = torch.full((*values.shape[:-1], 2 * values.shape[-1] + 3), 1e30).to(values.dtype)
        sliced = wide[..., 1 : 1 + values.shape[-1]]
        stepped = wide.clone()[..., 3::2]
        swapped = values.transpose(0, -1).contiguous().transpose(0, -1)
        for view in (sliced, stepped):
            view.copy_(values)
        return SimpleNamespace(sliced=sliced, stepped=stepped, transposed=swapped)

    return lay
