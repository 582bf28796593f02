"""estimate_M on threads, after fork, in little memory, in no other, and on other devices."""

import math
import os
import re
import signal
import threading

import pytest
import torch

from rskernels.envelope import Envelope, estimate, estimate_M

from .test_estimate_m import problem


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("method", ["max", "quantile"])
def test_threads_do_not_change_a_bit(threads, method, dense):
    logits, p_hat, targets = problem(200, 8200)
    p_hat, targets = (p_hat[:, None], None) if dense else (p_hat, targets)
    level = 0.7 if method == "quantile" else None
    results = set()
    for count in (1, 2, 5):
        threads(count)
        results.add(estimate_M(logits, p_hat, targets=targets, method=method, level=level))
    assert len(results) == 1


def test_concurrent_calls():
    logits, p_hat, targets = problem(200, 8200)
    expected = estimate_M(logits, p_hat, targets=targets)
    results = []

    def call():
        results.extend(estimate_M(logits, p_hat, targets=targets) for _ in range(5))

    callers = [threading.Thread(target=call) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == [expected] * 30


def test_fork_after_use(threads):
    threads(2)
    logits, p_hat, targets = problem(200, 8200)
    expected = estimate_M(logits, p_hat, targets=targets)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if estimate_M(logits, p_hat, targets=targets) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


def peak_memory():
    """Return the high-water mark of resident memory in bytes, and set it back to the present."""
    with open("/proc/self/status", encoding="utf-8") as status:
        kibibytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as control:
        control.write("5")
    return 1024 * kibibytes


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
@pytest.mark.parametrize("dense", [False, True])
def test_needs_no_memory_of_the_size_of_the_logits(dense):
    logits, p_hat, targets = problem(1024, 32000)
    p_hat, targets = (torch.rand(32000), None) if dense else (p_hat, targets)
    estimate_M(logits, p_hat, targets=targets)  # starts the threads
    peak_memory()
    before = peak_memory()
    estimate_M(logits, p_hat, targets=targets)
    after = peak_memory()
    assert after - before <= 0.01 * logits.numel() * logits.element_size()


def largest(logits, p_hat, targets, method, level, log_space, temperature):
    """Return M of the rows with targets in float64."""
    log_q = torch.log_softmax(logits.double() / temperature, -1)
    log_q = log_q.gather(-1, targets.clamp(min=0)[:, None])[:, 0]
    ratios = (p_hat.double() if log_space else p_hat.double().log()) - log_q
    ratios = ratios[(targets >= 0) & ~ratios.isnan()].sort().values
    rank = math.ceil((level or 1.0) * len(ratios))
    log_M = ratios[rank - 1].item()
    return log_M if log_space else math.exp(log_M)


@pytest.mark.parametrize("log_space", [False, True])
@pytest.mark.parametrize("method", ["max", "quantile"])
@pytest.mark.parametrize("dense", [False, True])
def test_what_cuda_tensors_run_agrees(monkeypatch, method, dense, log_space):
    logits, p_hat, targets = problem(64, 5000)
    logits[3, 3] = math.nan
    targets[5] = -100
    p_hat = p_hat.log() if log_space else p_hat
    p_hat, targets = (p_hat[:, None], None) if dense else (p_hat, targets)
    options = {"targets": targets, "method": method, "log_space": log_space, "temperature": 0.7}
    options["level"] = 0.7 if method == "quantile" else None
    # With targets every device takes the same path.
    expected = estimate_M(logits, p_hat, **options) if dense else largest(logits, p_hat, **options)
    generator = torch.get_rng_state()
    monkeypatch.setattr(
        estimate,
        "_estimate_dense_on_cpu",
        lambda logits, p_hat, *law: estimate._estimate_by_deciding(
            logits, p_hat, None, *law, ignore_index=-100
        ),
    )
    assert estimate_M(logits, p_hat, **options) == pytest.approx(expected, rel=5e-3)
    assert torch.equal(torch.get_rng_state(), generator)
    nothing = torch.full((2, 4), math.nan)
    with pytest.raises(ValueError, match=re.escape("(0 valid, 8 invalid, 0 ignored)")):
        estimate_M(nothing, 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")
@pytest.mark.parametrize("method", ["max", "quantile"])
@pytest.mark.parametrize("dense", [False, True])
def test_cuda_agrees_with_cpu(method, dense):
    logits, p_hat, targets = problem(64, 5000)
    logits[3, 3] = math.nan
    targets[5] = -100
    p_hat, targets = (p_hat[:, None], None) if dense else (p_hat, targets)
    level = 0.7 if method == "quantile" else None
    options = {"method": method, "level": level}
    on_cpu = estimate_M(logits, p_hat, targets=targets, **options)
    on_gpu = estimate_M(
        logits.cuda(),
        p_hat.cuda(),
        targets=None if targets is None else targets.cuda(),
        **options,
    )
    assert on_gpu == pytest.approx(on_cpu, rel=1e-5 if method == "max" else 5e-3)


def test_reads_nothing_outside_the_rows():
    # NaN all around: a read beyond a row or before it would show.
    padded = torch.full((12, 5100), math.nan)
    inner = padded[2:10, 50:4200]
    logits, p_hat, targets = problem(8, 4150)
    inner.copy_(logits)
    M = estimate_M(inner, p_hat, targets=targets)
    assert estimate_M(logits, p_hat, targets=targets) == M
    assert estimate_M(inner, 1.0) == estimate_M(logits, 1.0)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_subnormal_densities_count_whichever_thread_reads_them(threads, dense, flip):
    threads(2)
    rows = 4000
    logits, targets = torch.zeros(rows, 256), torch.zeros(rows, dtype=torch.int64)
    p_hat = torch.full((rows, 1), 1e-41)
    p_hat[0] = 1e-39
    p_hat = p_hat.flip(0) if flip else p_hat
    p_hat, targets = (p_hat, None) if dense else (p_hat[:, 0], targets)
    want = estimate_M(logits, p_hat, targets=targets)
    ratios = torch.full((200_000,), 1e-41)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush")
    try:
        assert estimate_M(logits, p_hat, targets=targets) == want
        envelope = Envelope()
        envelope.update(ratios)
        log_M = envelope.log_M()
    finally:
        torch.set_flush_denormal(False)
    assert log_M.item() == ratios[0].item() > 0
