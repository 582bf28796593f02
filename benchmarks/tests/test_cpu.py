"""The harness itself: the baselines follow the same law, and nothing slower is hidden."""

import os

import pytest
import torch

from benchmarks.common import agreement, baselines, machine
from benchmarks.common.cases import Case, Pool
from benchmarks.cpu import memory, read_limit, report

N, V = 4000, 50
ALLOWED = 5.0  # standard errors

PER_TARGET = [
    Case(operation, N, V, dtype, acceptance)
    for operation in ("accept_mask", "verify_mask")
    for dtype in ("float32", "bfloat16")
    for acceptance in (0.1, 0.5)
]


@pytest.mark.parametrize("case", PER_TARGET, ids=str)
def test_every_form_accepts_the_share_that_the_case_names(case):
    inputs = Pool([case]).inputs(case)
    calls = {name: form.function for name, form in baselines.eager(case).items()}
    for name, call in {**calls, "rskernels": baselines.ours(case)}.items():
        share = call(*inputs).float().mean().item()
        error = (case.acceptance * (1 - case.acceptance) / N) ** 0.5
        assert abs(share - case.acceptance) < ALLOWED * error, name
    agreement.check(case, inputs)


def test_the_dense_forms_accept_alike():
    case = Case("accept_mask dense", 200, V)
    inputs = Pool([case]).inputs(case)
    shares = [
        form.function(*inputs).float().mean().item() for form in baselines.eager(case).values()
    ]
    ours = baselines.ours(case)(*inputs).float().mean().item()
    assert shares == pytest.approx([ours, ours], abs=ALLOWED * (0.25 / (200 * V)) ** 0.5)


def test_the_gradient_forms_agree():
    case = Case("target_log_prob", 20, V)
    inputs = Pool([case]).inputs(case)
    ours = baselines.ours(case)(*inputs)
    for form in baselines.eager(case).values():
        torch.testing.assert_close(form.function(*inputs), ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("V", [1, 15, 16, 64, 65, 1000])
def test_the_read_limit_is_a_row_maximum(dtype, V):
    logits = torch.randn(7, V).to(dtype)
    assert torch.equal(read_limit.row_max(logits), logits.float().amax(-1))


def test_a_core_a_thread_leaves_the_machine_its_cores(monkeypatch):
    assert machine.cpu()["cores"] == len(os.sched_getaffinity(0))
    monkeypatch.setenv("RSKERNELS_BENCHMARK_CORES", "0,1,2")
    assert machine.cpu()["cores"] == 3


@pytest.mark.skipif(memory.extra_memory(lambda: None) is None, reason="reads Linux's /proc")
def test_memory_sees_a_temporary():
    size, huge_page = 1 << 24, 1 << 21

    def call():
        return torch.ones(size).sum()

    call()
    # The kernel counts pages in batches, and may back an end of an allocation with a huge one.
    assert abs(memory.extra_memory(call) - size * 4) < 3 * huge_page


def test_a_slower_case_is_marked_and_listed():
    result = {
        "operation": "accept_mask", "rows": 4, "columns": 10, "dtype": "float32",
        "acceptance": 0.5, "ours": {"median": 2.0, "low": 2.0, "high": 3.0},
        "eager": {"softmax": 1.0}, "compiled": {"softmax": 4.0}, "limit": {"amax": 0.5},
    }  # fmt: skip
    row = report.Row(result)
    assert (row.share, row.over_eager, row.over_compiled) == (0.25, 0.5, 2.0)
    results = {
        "machine": {}, "versions": {}, "command": "", "date": "", "seconds": 1,
        "cases": [result],
    }  # fmt: skip
    text = report.markdown(results)
    assert "**0.50**" in text
    assert "0.50× softmax (eager)" in text
    assert "× the fastest eager form | ≥ 1 | 0.50 | **not met** |" in text
    assert "## Noisy" in text
