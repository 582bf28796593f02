"""What a GPU run is made of: its budget, the GPU's own tests, and the compiler's table."""

import contextlib
import sys

import pytest

from benchmarks.gpu import compile_ahead, device_tests
from benchmarks.gpu.budget import Budget


def test_a_budget_knows_what_steps_cost():
    now = 0.0
    budget = Budget(20.0, {"shape": 2.0, "compile": 5.0}, lambda: now)
    assert budget.allows("compile", shape=7)
    assert not budget.allows("compile", shape=8)
    for seconds in (1.0, 1.0, 4.0):
        with contextlib.suppress(ValueError), budget.step("shape"):
            now += seconds
            raise ValueError
    assert (budget.cost("shape"), budget.cost("compile")) == (1.0, 5.0)
    assert (budget.spent, budget.left) == (6.0, 14.0)
    assert budget.allows("compile", shape=9)
    assert not budget.allows("compile", shape=10)


def test_the_compilers_table_shows_what_every_target_compiled():
    loop = {"instructions": 320, "barriers": 3, "logits": 64.0}
    decided = {"instructions": 240, "barriers": 0, "logits": 8.0}

    def launch(name, registers, load_bits=128, loops=()):
        return {
            "kernel": "target", "launch": name, "dtype": "float16", "registers": registers,
            "spills": 4, "shared": 32, "load_bits": load_bits, "loops": loops,
        }  # fmt: skip

    targets = {
        "sm_90": [
            launch("mask", 39, loops=[loop]),
            launch("dense mask", 9, loops=[loop, decided]),
            launch("decide", 41, None),
            launch("mask, odd", 50),
        ],
        "gfx942": [
            launch("mask", 29, loops=[loop]),
            launch("dense mask", 9, loops=[loop, decided]),
            launch("decide", 31, None),
        ],
    }
    header = {"date": "", "command": "", "versions": {}}
    text = compile_ahead.markdown({**header, "targets": targets})
    assert "| kernel | launch | sm_90 | gfx942 |" in text
    assert "| target | mask | 39 · 4 · 32 · 128 | 29 · 4 · 32 · 128 |" in text
    assert "| target | decide | 41 · 4 · 32 | 31 · 4 · 32 |" in text
    assert "odd" not in text
    # 5 instructions a logit: 132 units of 128 lanes at 1.755 GHz, two bytes each.
    assert "| float16 | H100, 3.35 TB/s | H200, 4.8 TB/s | MI300X, 5.3 TB/s |" in text
    assert "| mask | 5.0 · 3 · ≤ 11.9 | 5.0 · 3 · ≤ 11.9 | 5.0 · 3 · ≤ 16.3 |" in text
    # 5 and 30 more, for two bytes read and one written.
    assert "| dense mask | 35.0 · 3 · ≤ 2.5 | 35.0 · 3 · ≤ 2.5 | 35.0 · 3 · ≤ 3.5 |" in text


@pytest.mark.parametrize(
    ("code", "outcome", "status"),
    [("print('3 passed')", "passed", 0), ("print('FAILED x'); exit(1)", "failed", 1)],
)
def test_the_tests_outcome_is_kept(code, outcome, status, monkeypatch, capsys):
    seen = device_tests.run(60.0, [sys.executable, "-c", code])
    assert seen["outcome"] == outcome
    assert seen["failed"] == (["FAILED x"] if status else [])
    assert seen["summary"] in capsys.readouterr().out


def test_tests_that_take_too_long_are_stopped_with_what_they_started():
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('begun', flush=True)\n"
        "time.sleep(60)\n"
    )
    seen = device_tests.run(2.0, [sys.executable, "-c", code])
    assert seen["outcome"] == "stopped after 2 s"
    assert seen["summary"] == "begun"
    assert seen["seconds"] < 30.0
